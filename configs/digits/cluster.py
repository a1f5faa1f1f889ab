"""Cluster on handwritten digits: the features of a classifier of digits, each replaced by the nearest of 256 codes.

    auto_torchrun -m vq.train ic/digits configs/ic/digits.py
    auto_torchrun -m vq.train digits_cluster configs/digits/cluster.py
    auto_torchrun -m vq.train digits_cluster_decoder configs/digits/decoder.py tokenizer_run=digits_cluster

700 steps took 26 seconds on one of 2 CPU cores shared with other programs (load 6). Measured on the 180 validation digits, one
seed: 96.5 % of the codes in use, perplexity 189.
Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import digits_cluster

_export_ = digits_cluster(_kwargs_)
