"""CVQ-VAE on ImageNet. Idle codes move to features that are sampled by similarity.

    auto_torchrun -m vq.train cvqvae/8192_multinomial_imagenet_ddp configs/cvqvae/8192_multinomial_imagenet_ddp.py
    auto_torchrun -m vq.val   cvqvae/8192_multinomial_imagenet_ddp configs/cvqvae/8192_multinomial_imagenet_ddp.py

8,192 codes, cosine distance, a discriminator of depth 2, a gain of 0.75. The authors' 'probrandom'; the reference toolkit's
version sampled distant features. Every step computes a K x N table (codes x features) in tiles. Hardware and hours:
not measured here, and published nowhere. Expected figures: none are published for this recipe; this config was never trained
to its end.
"""

from vq.recipes import cvqvae

_export_ = cvqvae(_kwargs_, update=dict(anchor='multinomial'))
