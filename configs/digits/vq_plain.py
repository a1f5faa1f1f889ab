"""The plain VQ of van den Oord et al. (2017): codes learn by gradient alone. Most of them die; that is what it shows.

    auto_torchrun -m vq.train digits_plain configs/digits/vq_plain.py

700 steps took 147 seconds on 2 CPU cores that other programs shared. Measured on the 180 validation digits, one seed:
24.7 dB PSNR, 11 % of the codes in use. Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import digits_tokenizer

_export_ = digits_tokenizer(_kwargs_, quantizer=dict(type='VectorQuantizer'), embedding_dim=16)
