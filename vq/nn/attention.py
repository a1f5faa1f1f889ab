"""Attention over the cells of a feature map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vq.nn.norms import NormKind, make_norm
from vq.nn.recompute import Recomputed


class SpatialAttention(Recomputed):
    """y = x + proj(softmax(q k^T / sqrt(C)) v), one head, every cell attends to every cell.

    Queries, keys and values have separate 1x1 convolutions, as in the published checkpoints.
    """

    def __init__(self, channels: int, *, norm: NormKind = 'group', norm_groups: int = 32) -> None:
        super().__init__()
        self.norm = make_norm(channels, norm, norm_groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def compute(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        # (B, 1, HW, C) each, channels last: fused kernels require it
        q, k, v = (conv(h).flatten(2).transpose(1, 2).unsqueeze(1).contiguous() for conv in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.squeeze(1).transpose(1, 2).reshape(x.shape))
        return x + out
