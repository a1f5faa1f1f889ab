"""Unit-length codes, trained by gradient and set to k-means centres of the features after 100 steps.

    auto_torchrun -m vq.train digits_kmeans configs/digits/vq_kmeans.py

700 steps took 5 minutes on one of 2 CPU cores shared with other programs (load 5). Measured on the 180 validation digits,
one seed: 29.0 dB PSNR, 99.6 % of the codes in use. With k-means before the first step (``delay`` 0): 28.0 dB and 75 %, since
the encoder's features drift away from these codes. With codes that track mean directions (vq_directions.py), no k-means: 11 %.
Options: ``codebook_size`` (256), ``delay`` (100), and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import digits_kmeans

_export_ = digits_kmeans(_kwargs_)
