"""VQ-KD of handwritten digits: codes from which the features of a classifier of digits are predicted. It makes no pixels.

    auto_torchrun -m vq.train ic/digits configs/ic/digits.py
    auto_torchrun -m vq.train digits_vqkd configs/digits/vqkd.py
    auto_torchrun -m vq.train digits_vqkd_decoder configs/digits/decoder.py tokenizer_run=digits_vqkd

700 steps took 81 seconds on one of 2 CPU cores shared with other programs (load 6). Measured on the 180 validation digits, one
seed: 99.2 % of the codes in use, perplexity 218, a cosine loss of 0.038. With k-means before the first step (``kmeans_delay``
0) 67.6 % of the codes are in use, since the encoder's features drift away from these codes.
Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import digits_vqkd

_export_ = digits_vqkd(_kwargs_)
