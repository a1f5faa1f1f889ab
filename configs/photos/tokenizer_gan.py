"""tokenizer.py with a discriminator in the second half of the run.

    auto_torchrun -m vq.train tok configs/photos/tokenizer_gan.py --config-options data_root::photos

TO MEASURE minutes. Expected.
"""

from vq.recipes import photos_gan

_export_ = photos_gan(_kwargs_)
