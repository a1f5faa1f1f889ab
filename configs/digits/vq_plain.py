"""The plain VQ of van den Oord et al. (2017): codes are trained by gradient alone. A baseline in which most codes die.

    auto_torchrun -m vq.train digits_plain configs/digits/vq_plain.py

700 steps took 147 seconds on 2 CPU cores shared with other programs. Measured on the 180 validation digits, one seed:
24.7 dB PSNR, 11 % of the codes in use. Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import digits_tokenizer

_export_ = digits_tokenizer(_kwargs_, quantizer=dict(type='VectorQuantizer'), embedding_dim=16)
