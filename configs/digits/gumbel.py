"""Gumbel-softmax codes (Jang et al. 2017; DALL-E): drawn with noise that cools down, so that every code has gradients.

    auto_torchrun -m vq.train digits_gumbel configs/digits/gumbel.py

The temperature falls from 1 to 1/16 over the run. 700 steps took 80 seconds on one of 2 CPU cores that other programs shared.
Measured on the 180 validation digits, one seed: 24.4 dB PSNR, 31 % of the codes in use (kl_weight 5e-4: 24.3 dB, 17 %); not
tuned further. Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import cooling, digits_tokenizer

quantizer = dict(type='GumbelQuantizer', kl_weight=5e-3)
_export_ = digits_tokenizer(_kwargs_, quantizer=quantizer, embedding_dim=16, callbacks=dict(temperature=cooling()))
