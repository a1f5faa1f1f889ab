"""Gumbel-softmax codes (Jang et al. 2017; DALL-E): codes are sampled with annealed noise, so every code gets gradients.

    auto_torchrun -m vq.train digits_gumbel configs/digits/gumbel.py

The temperature falls from 1 to 1/16 over the run. 700 steps took 80 seconds on one of 2 CPU cores shared with other programs.
Measured on the 180 validation digits, one seed: 24.4 dB PSNR, 31 % of the codes in use (kl_weight 5e-4: 24.3 dB, 17 %); not
tuned further. Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import cooling, digits_tokenizer

quantizer = dict(type='GumbelQuantizer', kl_weight=5e-3)
_export_ = digits_tokenizer(_kwargs_, quantizer=quantizer, embedding_dim=16, callbacks=dict(temperature=cooling()))
