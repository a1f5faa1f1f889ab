"""CVQ-VAE with 8,192 codes of 256 channels and the nearest feature (cosine) as anchor, on ImageNet at 256 pixels.

    auto_torchrun -m vq.train cvqvae/8192_dd2_aglwg075_imagenet_ddp configs/cvqvae/8192_dd2_aglwg075_imagenet_ddp.py
    auto_torchrun -m vq.val   cvqvae/8192_dd2_aglwg075_imagenet_ddp configs/cvqvae/8192_dd2_aglwg075_imagenet_ddp.py

A discriminator of depth 2 (dd2), an adaptive weight of gain 0.75 (aglwg075). Hardware and hours: not measured here, and
published nowhere. Expected figures: none are published for this recipe. All codes should stay in use; the published VQGAN of
16,384 codes uses 5.9 % (measured by the toolkit this one re-implements). Never trained to its end.
"""

from vq.recipes import cvqvae

_export_ = cvqvae(_kwargs_)
