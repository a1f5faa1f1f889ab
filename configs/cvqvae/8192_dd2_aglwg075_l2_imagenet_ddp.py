"""CVQ-VAE as the reference toolkit ran it by mistake: codes and anchors by L2 distance in place of cosine, on ImageNet.

    auto_torchrun -m vq.train cvqvae/8192_dd2_aglwg075_l2_imagenet_ddp configs/cvqvae/8192_dd2_aglwg075_l2_imagenet_ddp.py
    auto_torchrun -m vq.val   cvqvae/8192_dd2_aglwg075_l2_imagenet_ddp configs/cvqvae/8192_dd2_aglwg075_l2_imagenet_ddp.py

For weights trained by that toolkit, and for comparison. Hardware and hours: not measured here, and published nowhere.
Expected figures: none are published for this recipe; this config was never trained to its end.
"""

from vq.recipes import cvqvae

_export_ = cvqvae(_kwargs_, distance='l2')
