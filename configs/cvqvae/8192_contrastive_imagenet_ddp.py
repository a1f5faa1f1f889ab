"""CVQ-VAE with the contrastive loss that pulls codes to their nearest features, on ImageNet.

    auto_torchrun -m vq.train cvqvae/8192_contrastive_imagenet_ddp configs/cvqvae/8192_contrastive_imagenet_ddp.py
    auto_torchrun -m vq.val   cvqvae/8192_contrastive_imagenet_ddp configs/cvqvae/8192_contrastive_imagenet_ddp.py

8,192 codes, cosine distance, a discriminator of depth 2, a gain of 0.75. The authors' code has this loss on by default; the
reference toolkit does not have it. The loss sorts the similarities of all features and codes in every step, so a step is
slower. Hardware and hours: not measured here, and published nowhere. Expected figures: none are published for this recipe;
this config was never trained to its end.
"""

from vq.recipes import cvqvae

_export_ = cvqvae(_kwargs_, codebook=dict(contrastive=dict()))
