"""Halving and doubling of feature maps."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vq.nn.lazy_tensors import is_lazy, repeat_cells

DownsampleKind = Literal['conv', 'strided', 'average']
UpsampleKind = Literal['nearest', 'repeat', 'depth_to_space']


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
        y: Tensor = self.conv(doubled(x))
        return y


class Repeat(nn.Module):
    """(B, C, h, w) -> (B, C, 2h, 2w): every cell four times, without a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return doubled(x)


def doubled(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, 2h, 2w): nearest-neighbour interpolation."""
    return repeat_cells(x) if is_lazy(x) else F.interpolate(x, scale_factor=2.0, mode='nearest')


class StridedDownsample(nn.Module):
    """(B, C, 2h, 2w) -> (B, C, h, w): a 3x3 convolution of stride 2 with zeros on all sides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class DepthToSpace(nn.Module):
    """(B, C, h, w) -> (B, C, 2h, 2w): a 3x3 convolution to 4 C channels, split into the four cells of C channels each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        parts = self.conv(x).view(batch, 2, 2, channels, height, width)  # row and column within the cell, then channels
        wide: Tensor = parts.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels, 2 * height, 2 * width)
        return wide


def make_downsample(channels: int, kind: DownsampleKind) -> nn.Module:
    if kind == 'average':
        return nn.AvgPool2d(2)
    return ConvDownsample(channels) if kind == 'conv' else StridedDownsample(channels)


def make_upsample(channels: int, kind: UpsampleKind) -> nn.Module:
    if kind == 'repeat':
        return Repeat()
    return Upsample(channels) if kind == 'nearest' else DepthToSpace(channels)
