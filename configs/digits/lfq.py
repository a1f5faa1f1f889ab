"""Lookup-free quantization (Yu et al. 2023): 8 sign bits give 256 codes; an entropy loss keeps all of them in use.

    auto_torchrun -m vq.train digits_lfq configs/digits/lfq.py

700 steps took 301 seconds on 2 CPU cores shared with other programs (load 10). Measured on the 180 validation digits, one
seed: 23.0 dB PSNR, 100 % of the codes in use. A weaker entropy loss (weight 0.1, temperature 1): 23.1 dB and 82 %.
Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import digits_tokenizer

quantizer = dict(type='LookupFreeQuantizer', bits=8, entropy=dict(weight=0.2, temperature=0.3))
_export_ = digits_tokenizer(_kwargs_, quantizer=quantizer)
