"""Blocks between two resolutions of a UNet."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vq.interfaces import UNetBlock
from vq.registries import VQUNetBlockRegistry


@VQUNetBlockRegistry.register_()
class Downsample(UNetBlock):
    """Half the resolution, by a 3x3 convolution of stride 2, or without ``conv`` by means of 2 x 2 cells."""

    def __init__(self, channels: int, conv: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if conv else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.avg_pool2d(x, 2) if self.conv is None else self.conv(x)
        return y


@VQUNetBlockRegistry.register_()
class Upsample(UNetBlock):
    """Twice the resolution: each cell four times, then a 3x3 convolution if ``conv``."""

    def __init__(self, channels: int, conv: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if conv else None

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode='nearest')
        return x if self.conv is None else self.conv(x)
