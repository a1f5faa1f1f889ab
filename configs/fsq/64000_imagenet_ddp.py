"""FSQ with 64,000 codes = 8 x 8 x 8 x 5 x 5 x 5, on ImageNet at 256 pixels.

    auto_torchrun -m vq.train fsq/64000_imagenet_ddp configs/fsq/64000_imagenet_ddp.py
    auto_torchrun -m vq.val   fsq/64000_imagenet_ddp configs/fsq/64000_imagenet_ddp.py

VQGAN's networks, losses and discriminator of depth 3; six channels, 16 x 16 tokens of 16.0 bits. Hardware and hours: not
measured here, and published nowhere. Expected figures: none are published for this recipe. Every code can be reached, so usage
should be near 100 %; VQGAN's codebook collapses (the published one uses 5.9 % of 16,384 codes). Never trained to its end.
"""

from vq.recipes import fsq

_export_ = fsq(_kwargs_, codebook_size=64000)
