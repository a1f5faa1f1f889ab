"""VQGAN on ImageNet with 8 pixels a token: 256 pixels, 32 x 32 tokens, 16,384 codes of 256 numbers.

    auto_torchrun -m vq.train vqgan/f8_16384_imagenet_ddp configs/vqgan/f8_16384_imagenet_ddp.py
    auto_torchrun -m vq.val   vqgan/f8_16384_imagenet_ddp configs/vqgan/f8_16384_imagenet_ddp.py

Hardware and hours: not measured here, and published nowhere; a step costs more than at 16 pixels a token, since attention
works on 1,024 cells (`python -m vq.config` prints both). Expected, quoted from the taming-transformers README for its model of
this shape, which was trained on OpenImages: rFID 1.14. This config was never trained to its end.
"""

from vq.recipes import vqgan

_export_ = vqgan(_kwargs_, codebook_size=16384, multipliers=(1, 1, 2, 4))
