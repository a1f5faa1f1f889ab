"""Product quantization: two halves of the channels with 16 codes each. 8 bits per cell, as with 256 codes.

    auto_torchrun -m vq.train digits_grouped configs/digits/grouped.py

700 steps took 325 seconds on one of 2 CPU cores shared with many other programs (load 10), 92 seconds of CPU time. Measured on
the 180 validation digits, one seed: 30.1 dB PSNR, all codes of both groups in use (mean perplexity 15.0 of 16); not tuned.

Options: ``groups`` (2), ``codes`` (16 per group), and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import digits_grouped

_export_ = digits_grouped(_kwargs_)
