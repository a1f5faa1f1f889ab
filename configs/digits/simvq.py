"""SimVQ (Zhu et al. 2024): 256 frozen random codes, seen through a linear layer that learns; every step moves all of them.

    auto_torchrun -m vq.train digits_simvq configs/digits/simvq.py

700 steps took 445 seconds on 2 CPU cores that other programs shared (load 10 to 20). Measured on the 180 validation digits,
one seed: 29.6 dB PSNR, 98.8 % of the codes in use. Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import digits_tokenizer

_export_ = digits_tokenizer(_kwargs_, quantizer=dict(type='SimVectorQuantizer'))
