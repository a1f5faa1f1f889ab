"""Finite scalar quantization (Mentzer et al. 2023): no codebook at all, 8 x 8 x 4 = 256 codes by rounding.

    auto_torchrun -m vq.train digits_fsq configs/digits/fsq.py

Nothing can die, so there is no codebook loss. 700 steps took 116 seconds on 2 CPU cores that other programs shared.
Measured on the 180 validation digits, one seed: 29.4 dB PSNR, 93 % of the codes in use.
Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import digits_tokenizer

_export_ = digits_tokenizer(_kwargs_, quantizer=dict(type='FiniteScalarQuantizer', levels=[8, 8, 4]))
