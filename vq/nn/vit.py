"""Blocks of vision transformers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.nn.recompute import Recomputed

EPS = 1e-6
STD = 0.02


class ViTBlock(Recomputed):
    """y = x + attention(norm(x));  y + mlp(norm(y)), for x (B, N, dim): every position attends to every position.

    (Dosovitskiy et al. 2021.) ``heads`` of equal width, mlp dim -> ratio * dim -> dim with GELU. Without ``key_bias`` keys
    have no bias, as in BEiT. ``eps`` is that of the norms.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, key_bias: bool = True, eps: float = EPS) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ConfigError(f'{dim} channels do not divide among {heads} heads', 'Choose heads that divide dim.')
        self.heads = heads
        self.norm_attention = nn.LayerNorm(dim, eps=eps)
        self.qkv = nn.Linear(dim, 3 * dim) if key_bias else KeylessBias(dim)
        self.proj = nn.Linear(dim, dim)
        hidden = round(mlp_ratio * dim)
        self.norm_mlp = nn.LayerNorm(dim, eps=eps)
        self.mlp_in = nn.Linear(dim, hidden)
        self.mlp_out = nn.Linear(hidden, dim)

    def compute(self, x: Tensor) -> Tensor:
        batch, count, dim = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, count, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, dim / heads) each
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, count, dim)
        x = x + self.proj(mixed)
        y: Tensor = x + self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x))))
        return y


class KeylessBias(nn.Linear):
    """x (..., dim) -> queries, keys and values (..., 3 * dim), W x + (q_bias, 0, v_bias)."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias)))


def make_blocks(
    depth: int, dim: int, heads: int, mlp_ratio: float = 4.0, key_bias: bool = True, eps: float = EPS
) -> nn.ModuleList:
    """``depth`` blocks with BEiT's initial weights: normal of deviation 0.02; in the two output layers of block i, 0.02 /
    sqrt(2 i).
    """
    if depth < 1:
        raise ConfigError(f'depth is {depth}', 'Give 1 block or more.')
    blocks = nn.ModuleList(ViTBlock(dim, heads, mlp_ratio, key_bias, eps) for _ in range(depth))
    for number, block in enumerate(blocks, 1):
        for name, layer in block.named_children():
            if isinstance(layer, nn.Linear):
                added = name in ('proj', 'mlp_out')
                init_linear(layer, STD / math.sqrt(2 * number) if added else STD)
    return blocks


def init_linear(layer: nn.Linear | nn.Conv2d, std: float = STD) -> None:
    """Weights from a normal distribution that is cut at two deviations; biases zero."""
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
