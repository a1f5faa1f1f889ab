"""A tokenizer of your own pictures: a folder, with or without one folder for each class in it.

    auto_torchrun -m vq.train tok configs/photos/tokenizer.py --config-options data_root::photos

TO MEASURE minutes. Expected.

Options: ``data_root`` (the folder), ``image_size`` (64), ``size`` (S, M, L), and others: ``vq.config FILE --options``.
"""

from vq.recipes import photos_tokenizer

_export_ = photos_tokenizer(_kwargs_)
