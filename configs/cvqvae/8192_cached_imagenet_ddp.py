"""CVQ-VAE on ImageNet. Idle codes move to random features of the batch, or cached ones of earlier steps if it has too few.

    auto_torchrun -m vq.train cvqvae/8192_cached_imagenet_ddp configs/cvqvae/8192_cached_imagenet_ddp.py
    auto_torchrun -m vq.val   cvqvae/8192_cached_imagenet_ddp configs/cvqvae/8192_cached_imagenet_ddp.py

8,192 codes, cosine distance, a discriminator of depth 2, a gain of 0.75. The cheapest anchor: distances are computed only
once per step. Hardware and hours: not measured here, and published nowhere. Expected figures: none are published for this
recipe; this config was never trained to its end.
"""

from vq.recipes import cvqvae

_export_ = cvqvae(_kwargs_, update=dict(anchor='cached'))
