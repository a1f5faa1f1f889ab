"""A tokenizer of your own pictures with a small discriminator, which trains in the second half of the run.

    auto_torchrun -m vq.train tok configs/photos/tokenizer_gan.py --config-options data_root::photos

Run only in the tiny form, which takes seconds. Expected: finer texture than that of tokenizer.py at a slightly lower PSNR; on
digits (../digits/vqgan.py) the same discriminator cost 0.1 dB.

Options: ``gain`` (0.1), ``start`` (half of the steps), and those of tokenizer.py.
"""

from vq.recipes import photos_gan

_export_ = photos_gan(_kwargs_)
