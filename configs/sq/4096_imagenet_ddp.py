"""Scalar quantization with the same number of levels in every channel: 8 x 8 x 8 x 8 = 4,096 codes, on ImageNet at 256 pixels.

    auto_torchrun -m vq.train sq/4096_imagenet_ddp configs/sq/4096_imagenet_ddp.py
    auto_torchrun -m vq.val   sq/4096_imagenet_ddp configs/sq/4096_imagenet_ddp.py

configs/fsq varies this config. `--config-options levels:[4,4,4,4,4,4]` has the same number of codes in six channels. 16 x 16
tokens of 12 bits. Hardware and hours: not measured here. Expected figures: none are published for this recipe (the FSQ paper
recommends 5 or more levels per channel); this config was never trained to its end.
"""

from vq.recipes import scalar_quantization

_export_ = scalar_quantization(_kwargs_, levels=[8, 8, 8, 8])
