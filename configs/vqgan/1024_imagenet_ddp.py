"""VQGAN on ImageNet, 256 pixels, 16 x 16 tokens, 1,024 codes of 256 channels.

    auto_torchrun -m vq.train vqgan/1024_imagenet_ddp configs/vqgan/1024_imagenet_ddp.py
    auto_torchrun -m vq.val   vqgan/1024_imagenet_ddp configs/vqgan/1024_imagenet_ddp.py

Hardware and hours: not measured here, and published nowhere. Expected, quoted from the taming-transformers README for its own
model of this size (trained longer, with a discriminator of depth 2 or 3): rFID 7.94 on the 50,000 validation images,
10.54 against the training set. This config was never trained to its end.
"""

from vq.recipes import vqgan

_export_ = vqgan(_kwargs_, codebook_size=1024)
