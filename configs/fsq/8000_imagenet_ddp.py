"""FSQ with 8,000 codes = 8 x 8 x 5 x 5 x 5, on ImageNet at 256 pixels.

    auto_torchrun -m vq.train fsq/8000_imagenet_ddp configs/fsq/8000_imagenet_ddp.py
    auto_torchrun -m vq.val   fsq/8000_imagenet_ddp configs/fsq/8000_imagenet_ddp.py

VQGAN's networks, losses and discriminator of depth 3; five channels, 16 x 16 tokens of 13.0 bits. Hardware and hours: not
measured here, and published nowhere. Expected figures: none are published for this recipe. Every code can be reached, so usage
should be near 100 %; VQGAN's codebook collapses (the published one uses 5.9 % of 16,384 codes). Never trained to its end.
"""

from vq.recipes import fsq

_export_ = fsq(_kwargs_, codebook_size=8000)
