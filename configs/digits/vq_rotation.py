"""The codebook of vq_ema.py, with the rotation trick as gradient estimator of the encoder (Fifty et al. 2024).

    auto_torchrun -m vq.train digits_rotation configs/digits/vq_rotation.py

700 steps took 297 seconds on 2 CPU cores shared with other programs (load 10). Measured on the 180 validation digits, one
seed: 30.0 dB PSNR, 97.7 % of the codes in use. The straight-through estimator (vq_ema.py) has 31.3 dB.
Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import EMA, digits_tokenizer

_export_ = digits_tokenizer(_kwargs_, quantizer=dict(type='VectorQuantizer', gradient='rotation', update=EMA))
