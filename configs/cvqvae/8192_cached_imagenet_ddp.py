"""CVQ-VAE whose idle codes move to random features, kept from earlier steps where a batch has too few, on ImageNet.

    auto_torchrun -m vq.train cvqvae/8192_cached_imagenet_ddp configs/cvqvae/8192_cached_imagenet_ddp.py
    auto_torchrun -m vq.val   cvqvae/8192_cached_imagenet_ddp configs/cvqvae/8192_cached_imagenet_ddp.py

8,192 codes, distances by the angle, a discriminator of depth 2, a gain of 0.75. The cheapest anchor: no distance is taken a
second time. Hardware and hours: not measured here, and published nowhere. Expected figures: none are published for this
recipe; this config was never trained to its end.
"""

from vq.recipes import cvqvae

_export_ = cvqvae(_kwargs_, update=dict(anchor='cached'))
