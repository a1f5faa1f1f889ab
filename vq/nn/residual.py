"""The convolutional residual block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vq.nn.norms import NormKind, make_norm
from vq.nn.recompute import Recomputed


class Residual(Recomputed):
    """y = shortcut(x) + conv(drop(silu(norm(conv(silu(norm(x))))))), 3x3 convolutions, (B, C, H, W) throughout.

    The shortcut is a 1x1 convolution where the number of channels changes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        norm: NormKind = 'group',
        norm_groups: int = 32,
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(in_channels, norm, norm_groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
        self.norm2 = make_norm(out_channels, norm, norm_groups)
        self.dropout = nn.Dropout(dropout)
        self.random = dropout > 0
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1, bias=bias)

    def compute(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        y: Tensor = self.shortcut(x) + h
        return y
