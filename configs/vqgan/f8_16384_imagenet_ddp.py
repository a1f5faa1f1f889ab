"""VQGAN on ImageNet with 8 x 8 pixels per token: 256 pixels, 32 x 32 tokens, 16,384 codes of 256 channels.

    auto_torchrun -m vq.train vqgan/f8_16384_imagenet_ddp configs/vqgan/f8_16384_imagenet_ddp.py
    auto_torchrun -m vq.val   vqgan/f8_16384_imagenet_ddp configs/vqgan/f8_16384_imagenet_ddp.py

Hardware and hours: not measured here, and published nowhere. A step is slower than at 16 x 16 pixels per token, since
attention is over 1,024 cells (`python -m vq.config` prints the cost of both). Expected, quoted from the taming-transformers
README for its model of this shape, trained on OpenImages: rFID 1.14. This config was never trained to its end.
"""

from vq.recipes import vqgan

_export_ = vqgan(_kwargs_, codebook_size=16384, multipliers=(1, 1, 2, 4))
