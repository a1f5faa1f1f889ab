"""Binary spherical quantization (Zhao et al. 2024): signs of features on the unit sphere, 8 bits, 256 codes.

    auto_torchrun -m vq.train digits_bsq configs/digits/bsq.py

The entropy of the mean is computed over all 8 bits jointly. Computed bit by bit, as is necessary for long codes, it left more
than half of the codes unused (on a smaller network and a part of the training split). 700 steps took 383 seconds on 2 CPU
cores shared with other programs (load 10). Measured on the 180 validation digits, one seed: 23.1 dB PSNR, 99.6 % of the codes
in use.
Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import digits_tokenizer

quantizer = dict(type='BinarySphericalQuantizer', bits=8, entropy=dict(weight=0.1, temperature=0.1), entropy_group=8)
_export_ = digits_tokenizer(_kwargs_, quantizer=quantizer)
