"""CVQ-VAE with its authors' defaults (Zheng and Vedaldi 2023): randomly sampled anchors, and the contrastive loss.

    auto_torchrun -m vq.train digits_cvq_multinomial configs/digits/cvq_multinomial.py

700 steps took 2 minutes on one of 2 CPU cores shared with other programs (load 3). Measured on the 180 validation digits,
one seed: 28.3 dB PSNR, 82 % of the codes in use; not tuned.
Options: ``anchor`` ('multinomial', 'nearest' or 'cached'), and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import digits_cvq

_export_ = digits_cvq(_kwargs_)
