"""CVQ-VAE's clustering of codes (Zheng and Vedaldi 2023): rarely used codes move to the nearest feature.

    auto_torchrun -m vq.train digits_cvq configs/digits/cvq.py

700 steps took 65 seconds on one of 2 CPU cores shared with other programs. Measured on the 180 validation digits, one seed:
29.5 dB PSNR, 96 % of the codes in use. Cosine distance and decay 0.9: 27.2 dB and 99.6 %. 16 channels, cosine distance and the
usual decay of 0.99: 25.9 dB and 88 %, since usage is then averaged over a seventh of the run.
Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import digits_tokenizer

_export_ = digits_tokenizer(_kwargs_, quantizer=dict(type='VectorQuantizer', update=dict(type='CVQUpdate', decay=0.97)))
