"""Self-attention of diffusion UNets."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.denoisers.unet.residual import norm_of
from vq.interfaces import UNetBlock
from vq.nn.recompute import Recomputed
from vq.registries import VQUNetBlockRegistry


def head_count(channels: int, heads: int, head_dim: int | None) -> int:
    """The heads of an attention on so many channels. ``head_dim`` gives the channels of a head, and replaces ``heads``."""
    count = heads if head_dim is None else channels // max(1, head_dim)
    if count < 1 or channels % count or (head_dim is not None and count * head_dim != channels):
        raise ConfigError(
            f'{channels} channels with {heads} heads of {head_dim or "any number of"} channels',
            'The heads, or head_dim, must divide the channels of each level with attention.',
        )
    return count


def cells_of(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h w, C)."""
    return x.flatten(2).transpose(1, 2)


def map_of(cells: Tensor, like: Tensor) -> Tensor:
    """(B, h w, C) -> (B, C, h, w), the height and width of ``like``."""
    return cells.transpose(1, 2).reshape(len(like), -1, *like.shape[2:])


@VQUNetBlockRegistry.register_()
class SelfAttention(Recomputed, UNetBlock):
    """y = x + W softmax(q k^T / sqrt(D)) v + w over all cells, q, k and v linear in norm(x)  (Ho et al. 2020).

    Rows of ``qkv`` run head by head, and within a head through q, k and v. W and w start at zero.
    """

    def __init__(self, channels: int, groups: int = 32, heads: int = 1, head_dim: int | None = None) -> None:
        super().__init__()
        self.heads = head_count(channels, heads, head_dim)
        self.norm = norm_of(channels, groups)
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def compute(self, x: Tensor) -> Tensor:
        qkv = self.qkv(cells_of(self.norm(x))).unflatten(2, (self.heads, 3, -1))  # (B, N, heads, 3, D)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)  # (B, heads, N, D)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + map_of(self.proj(mixed.transpose(1, 2).flatten(2)), x)
