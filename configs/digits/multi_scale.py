"""VAR's multi-scale residual quantization: 1 + 4 + 9 + 16 = 30 tokens of 16 codes, coarse to fine. 120 bits per image.

    auto_torchrun -m vq.train digits_multi_scale configs/digits/multi_scale.py

700 steps took 396 seconds on one of 2 CPU cores shared with many other programs (load 10), 98 seconds of CPU time. Measured on
the 180 validation digits, one seed: 27.3 dB PSNR, all 16 codes in use (perplexity 13.3); not tuned.

Options: ``codebook_size`` (16), and those that ``vq.config FILE --options`` prints. ``image_size`` must stay at 32: the scales
are those of 4 x 4 cells.
"""

from vq.recipes import EMA, digits_tokenizer

quantizer = dict(type='MultiScaleQuantizer', quantizer=dict(type='VectorQuantizer', update=EMA), scales=(1, 2, 3, 4))
_export_ = digits_tokenizer(_kwargs_, quantizer=quantizer, codebook_size=16)
