"""What the diffusion transformers share: patches in, modulated blocks, patches out."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError, listing
from vq.core.specs import in_words
from vq.nn.packed import GeluLinear
from vq.nn.recompute import Recomputed
from vq.nn.rope import RotaryTable
from vq.nn.twice import LayerNorm, attention

EPS = 1e-6
NormKind = Literal['layer', 'rms']
MLPKind = Literal['gelu', 'swiglu']
Positions = Literal['sine', 'rope', 'both']
TimeKind = Literal['sine', 'fourier']


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift."""
    return torch.addcmul(shift, x, 1 + scale)


class RMSNorm(nn.RMSNorm):
    """x w / sqrt(mean x^2 + eps), in the precision of w: fp32 under autocast."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.to(self.weight.dtype), self.normalized_shape, self.weight, self.eps)


def make_norm(dim: int, kind: NormKind) -> LayerNorm | RMSNorm:
    """``layer``: without parameters, modulation scales and shifts; ``rms``: with a learned scale."""
    return LayerNorm(dim, EPS) if kind == 'layer' else RMSNorm(dim)


class Patches(nn.Conv2d):
    """z (B, C, H, W) -> tokens (B, H W / p^2, dim), row by row, a linear layer on patches of p x p cells.

    The weight has the shape of a convolution; the product runs on rows of patches, so that tokens lie in memory as they are
    read.
    """

    def __init__(self, channels: int, dim: int, patch: int, bias: bool = True) -> None:
        super().__init__(channels, dim, patch, patch, bias=bias)
        self.patch = patch

    def forward(self, z: Tensor) -> Tensor:
        rows = F.pixel_unshuffle(z, self.patch) if self.patch > 1 else z  # (B, C p^2, h, w)
        return F.linear(rows.flatten(2).transpose(1, 2), self.weight.flatten(1), self.bias)


class BottleneckPatches(nn.Module):
    """Patches -> ``width`` channels -> dim, both linear: natural patches have few degrees of freedom (Li and He 2025)."""

    def __init__(self, channels: int, dim: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj1, self.proj2 = Patches(channels, width, patch, bias=False), nn.Linear(width, dim)

    def forward(self, z: Tensor) -> Tensor:
        tokens: Tensor = self.proj2(self.proj1(z))
        return tokens


def unpatched(tokens: Tensor, patch: int, cells: tuple[int, int]) -> Tensor:
    """tokens (B, h w, p p C), in each the rows, the columns, then the channels of a patch -> (B, C, H, W)."""
    height, width = (side // patch for side in cells)
    parts = tokens.view(len(tokens), height, width, patch, patch, -1)
    return parts.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), -1, *cells)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(D)) v over all tokens; rotary positions and norms of q and k if asked for."""

    def __init__(self, dim: int, heads: int, rope: RotaryTable | None, qk_norm: NormKind | None) -> None:
        super().__init__()
        self.heads, self.rope = heads, rope
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.q_norm = self.k_norm = None
        if qk_norm is not None:
            width = dim // heads
            self.q_norm, self.k_norm = (nn.LayerNorm(width, EPS) if qk_norm == 'layer' else RMSNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).view(*x.shape[:2], 3, self.heads, -1)  # (B, N, 3, heads, D)
        q, k, v = qkv.unbind(2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        if self.rope is not None:
            q, k = self.rope(q), self.rope(k)
        mixed = attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        y: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return y


class GeluMLP(nn.Module):
    """W2 gelu(W1 x), with the tanh approximation of GELU."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.into, self.out = GeluLinear(dim, width), nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.into(x))
        return y


class SwiGLU(nn.Module):
    """W3 (silu(W1 x) * W2 x); W1 and W2 are one matrix (Shazeer 2020)."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(dim, 2 * width), nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.into(x).chunk(2, dim=-1)
        y: Tensor = self.out(F.silu(gate) * up)
        return y


class ModulatedBlock(Recomputed):
    """adaLN-zero (Peebles and Xie 2023), for x (B, N, dim) and a condition c, (B, 1, dim) or one for each token:

    h = x + g1 attention(norm(x) (1 + s1) + b1),  y = h + g2 mlp(norm(h) (1 + s2) + b2),  (b1, s1, g1, b2, s2, g2) = W c + w

    W and w start at zero, so the block starts as the identity. SwiGLU has two thirds of the width: as many parameters.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float,
        norm: NormKind = 'layer',
        mlp: MLPKind = 'gelu',
        qk_norm: bool = False,
        rope: RotaryTable | None = None,
    ) -> None:
        super().__init__()
        width = int(mlp_ratio * dim)
        self.norm1, self.norm2 = make_norm(dim, norm), make_norm(dim, norm)
        self.attention = Attention(dim, heads, rope, norm if qk_norm else None)
        self.mlp = GeluMLP(dim, width) if mlp == 'gelu' else SwiGLU(dim, int(2 / 3 * width))
        self.modulation = nn.Linear(dim, 6 * dim)

    def compute(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c).chunk(6, dim=-1)
        x = torch.addcmul(x, gate1, self.attention(modulated(self.norm1(x), shift1, scale1)))
        return torch.addcmul(x, gate2, self.mlp(modulated(self.norm2(x), shift2, scale2)))


class FinalLayer(nn.Module):
    """W (norm(x) (1 + s) + b) + w,  (b, s) = V c + v,  all of W, w, V, v zero at first: the network starts by giving zeros."""

    def __init__(self, dim: int, channels: int, norm: NormKind = 'layer') -> None:
        super().__init__()
        self.norm = make_norm(dim, norm)
        self.modulation, self.linear = nn.Linear(dim, 2 * dim), nn.Linear(dim, channels)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(c).chunk(2, dim=-1)
        y: Tensor = self.linear(modulated(self.norm(x), shift, scale))
        return y


def reset(network: nn.Module) -> None:
    """Linear layers uniform by Xavier, patches as linear layers, biases zero, modulations and the last layer zero."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ModulatedBlock):
            nn.init.zeros_(module.modulation.weight)
        elif isinstance(module, FinalLayer):
            nn.init.zeros_(module.modulation.weight)
            nn.init.zeros_(module.linear.weight)


def check_choices(**choices: tuple[str, object]) -> None:
    """Name of a setting = (its value, the ``Literal`` that allows it)."""
    for name, (value, allowed) in choices.items():
        if value not in get_args(allowed):
            raise ConfigError(f"{name} is '{value}'", f'It is one of: {listing(get_args(allowed))}.')


def check_sizes(cells: tuple[int, ...], patch: int, widths: tuple[tuple[int, int], ...], rope: bool) -> tuple[int, int]:
    """(H, W) of the cells. ``widths``: channels and heads of the parts."""
    if len(cells) != 2:
        raise ConfigError(
            f'cells are {tuple(cells)}: patches are of latents or images (h, w)',
            'Take a tokenizer whose latents have two axes.',
        )
    if patch < 1 or any(side < 1 or side % patch for side in cells):
        raise ConfigError(
            f'{in_words(cells)} cells do not divide into patches of {patch}', 'Choose a patch that divides height and width.'
        )
    for dim, heads in widths:
        if heads < 1 or dim % heads or dim % 4 or (rope and dim // heads % 4):
            more = ', and with rotary positions the channels of a head a multiple of 4' if rope else ''
            raise ConfigError(
                f'{dim} channels with {heads} heads', f'heads must divide dim, and dim must be a multiple of 4{more}.'
            )
    return cells[0], cells[1]
