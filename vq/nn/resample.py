"""Halving and doubling of feature maps."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

DownsampleKind = Literal['conv', 'average']


class ConvDownsample(nn.Module):
    """(B, C, 2h, 2w) -> (B, C, h, w): one row and column of zeros at the bottom and right, then a 3x3 stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return y


class Upsample(nn.Module):
    """(B, C, h, w) -> (B, C, 2h, 2w): every cell four times, then a 3x3 convolution.

    At a factor of two 'nearest' and 'nearest-exact' pick the same cells, so there is no option.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(
            repeat_cells(x) if x.device.type == 'xla' else F.interpolate(x, scale_factor=2.0, mode='nearest')
        )
        return y


def repeat_cells(x: Tensor) -> Tensor:
    """The same by views: torch_xla takes the derivative of ``interpolate`` on the host, in the middle of a step."""
    batch, channels, height, width = x.shape
    wide = x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)  # (B, C, h, 2, w, 2)
    return wide.reshape(batch, channels, 2 * height, 2 * width)


def make_downsample(channels: int, kind: DownsampleKind) -> nn.Module:
    return ConvDownsample(channels) if kind == 'conv' else nn.AvgPool2d(2)
