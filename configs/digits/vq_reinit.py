"""Codes are trained by gradient. After every epoch unused codes are reinitialized as copies of used codes.

    auto_torchrun -m vq.train digits_reinit configs/digits/vq_reinit.py

700 steps took 4 minutes on one of 2 CPU cores shared with other programs (load 5). Measured on the 180 validation digits,
one seed: 28.6 dB PSNR, 95 % of the codes in use.
Options: ``codebook_size`` (256), ``source`` ('codes', or 'features' for features of the batch), and those that
``vq.config FILE --options`` prints.
"""

from vq.recipes import digits_reinit

_export_ = digits_reinit(_kwargs_)
