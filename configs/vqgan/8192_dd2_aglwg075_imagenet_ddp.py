"""VQGAN with 8,192 codes, a discriminator of depth 2 (dd2) and an adaptive weight of gain 0.75 (aglwg075), on ImageNet.

    auto_torchrun -m vq.train vqgan/8192_dd2_aglwg075_imagenet_ddp configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py
    auto_torchrun -m vq.val   vqgan/8192_dd2_aglwg075_imagenet_ddp configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py

The baseline of "Image Understanding Makes for A Good Tokenizer for Image Generation" (2024), and the recipe of that paper's
pixel decoders. Hardware and hours: not measured here, and published nowhere. Expected figures: the paper quotes generation
only (gFID 15.78 with an autoregressive prior, quoted at second hand); this config was never trained to its end.
"""

from vq.recipes import vqgan

weight = dict(type='AdaptiveWeight', gain=0.75)
_export_ = vqgan(_kwargs_, codebook_size=8192, discriminator=dict(type='PatchGAN', depth=2), generator_weight=weight)
