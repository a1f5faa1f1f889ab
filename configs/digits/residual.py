"""Residual quantization: 16 codes for the feature, 16 more for the residual. 8 bits per cell, as with 256 codes.

    auto_torchrun -m vq.train digits_residual configs/digits/residual.py

700 steps took 375 seconds on one of 2 CPU cores shared with many other programs (load 10), 95 seconds of CPU time. Measured on
the 180 validation digits, one seed: 30.6 dB PSNR, all codes of both stages in use (perplexity 14.8 and 15.7 of 16); not tuned.

Options: ``stages`` (2), ``codes`` (16 per stage), and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import digits_residual

_export_ = digits_residual(_kwargs_)
