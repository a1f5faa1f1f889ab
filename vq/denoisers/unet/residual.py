"""The residual block of diffusion UNets."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vq.interfaces import EmbedBlock
from vq.nn.norms import group_count
from vq.nn.recompute import Recomputed
from vq.registries import VQUNetBlockRegistry

EPS = 1e-5


def norm_of(channels: int, groups: int, eps: float = EPS) -> nn.GroupNorm:
    return nn.GroupNorm(group_count(channels, groups), channels, eps)


@VQUNetBlockRegistry.register_()
class ResBlock(Recomputed, EmbedBlock):
    """y = skip(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + W silu(e) + w))),  e the embedding of the time  (Ho et al. 2020).

    ``scale_shift``: W gives a scale s and a shift b, and norm2(h) (1 + s) + b takes the place of norm2(h + ...) (Nichol and
    Dhariwal 2021). ``skip`` is the identity, or a 1x1 convolution where the channels change. conv2 starts at zero. ``dropout``
    stands before it.
    """

    random = True  # dropout

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_dim: int,
        groups: int = 32,
        dropout: float = 0.0,
        scale_shift: bool = False,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.norm1, self.conv1 = norm_of(in_channels, groups), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embed = nn.Linear(embedding_dim, out_channels * (2 if scale_shift else 1))
        self.norm2, self.conv2 = norm_of(out_channels, groups), nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def compute(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        told = self.embed(F.silu(embedding))[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + told)
        y: Tensor = self.skip(x) + self.conv2(self.dropout(F.silu(h)))
        return y
