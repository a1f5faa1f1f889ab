"""The plain public form of a DiT, as its paper describes it (Peebles and Xie 2023): the peer without a library.

Attention is a product, a softmax and a product; queries, keys and values come from one layer. Each block computes its
modulation from the condition of the step, and each step computes the condition anew. ``load`` takes the weights of ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vq.denoisers.dit import DiT
from vq.nn.sine_positions import sine_grid

FREQUENCIES = 128
OURS = {  # a name here -> its name in a DiT of ours
    'embed': 'patches',
    'time.0': 'time.mlp.into',
    'time.2': 'time.mlp.out',
    'mlp.0': 'mlp.into',
    'mlp.2': 'mlp.out',
    'qkv': 'attention.qkv',
    'out': 'attention.proj',
    'adaptive.1': 'modulation',
    'last': 'final.linear',
    'last_adaptive.1': 'final.modulation',
}


class PlainBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(dim, 1e-6, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU('tanh'), nn.Linear(4 * dim, dim))
        self.adaptive = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaptive(c).unsqueeze(1).chunk(6, dim=2)  # (B, 1, dim) each
        x = x + gate1 * self.attention(self.norm1(x) * (1 + scale1) + shift1)
        y: Tensor = x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)
        return y

    def attention(self, x: Tensor) -> Tensor:
        rows, count, dim = x.shape
        q, k, v = self.qkv(x).reshape(rows, count, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(dim // self.heads)).softmax(dim=-1)  # (B, heads, N, N)
        y: Tensor = self.out((weights @ v).transpose(1, 2).reshape(rows, count, dim))
        return y


class PlainDiT(nn.Module):
    """(z (B, C, H, W), index of the time (B,), class (B,)) -> noise (B, C, H, W)."""

    positions: Tensor

    def __init__(
        self, channels: int, side: int, patch: int, dim: int, depth: int, heads: int, classes: int, period: float
    ) -> None:
        super().__init__()
        self.patch, self.grid, self.period = patch, side // patch, period
        self.embed = nn.Conv2d(channels, dim, patch, patch)
        self.register_buffer('positions', sine_grid(self.grid, self.grid, dim), persistent=False)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.table = nn.Embedding(classes + 1, dim)
        self.blocks = nn.ModuleList(PlainBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, 1e-6, elementwise_affine=False)
        self.last_adaptive = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))
        self.last = nn.Linear(dim, patch * patch * channels)

    def forward(self, z: Tensor, index: Tensor, category: Tensor) -> Tensor:
        places = torch.arange(FREQUENCIES, dtype=torch.float32, device=z.device)
        angles = index[:, None].float() * torch.exp(-math.log(self.period) * places / FREQUENCIES)
        c = self.time(torch.cat([angles.cos(), angles.sin()], dim=-1)) + self.table(category)
        x = self.embed(z).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.last_adaptive(c).unsqueeze(1).chunk(2, dim=2)
        x = self.last(self.norm(x) * (1 + scale) + shift)
        x = x.reshape(len(z), self.grid, self.grid, self.patch, self.patch, -1)
        return torch.einsum('bhwpqc->bchpwq', x).reshape(z.shape)


def plain_name(name: str) -> str:
    """Of a parameter here -> its name in ours, without 'denoiser.'."""
    parts, leaf = name.rpartition('.')[::2]
    prefix = ''
    if parts.startswith('blocks.'):
        _, number, parts = parts.split('.', 2)
        prefix = f'blocks.{number}.'
    return f'{prefix}{OURS[parts]}.{leaf}'


def paired(values: Mapping[str, Tensor], table: Tensor, names: Mapping[str, object]) -> dict[str, Tensor]:
    """Values of a DiT of ours and of its class vectors, by the names of ``PlainDiT``."""
    return {name: table if name == 'table.weight' else values[plain_name(name)] for name in names}


def plain_form(denoiser: DiT, table: Tensor, period: float) -> PlainDiT:
    """The plain form with the weights of ours. F.linear of patches and a convolution have equal weights."""
    side, classes = denoiser.cells[0], len(table) - 1
    plain = PlainDiT(
        denoiser.channels, side, denoiser.patch, denoiser.dim, denoiser.depth, denoiser.heads, classes, period
    ).to(table.device)
    plain.load_state_dict(paired(dict(denoiser.named_parameters()), table, dict(plain.named_parameters())))
    return plain


class PlainDDIM:
    """Betas of Ho et al. (2020), and the steps of Song et al. (2021) without noise. Indices count from 0, the least noise."""

    def __init__(self, times: int, steps: int | None) -> None:
        assert steps is not None
        self.level = (1 - torch.linspace(1e-4, 0.02, times, dtype=torch.float64)).cumprod(0)  # alpha^2, (times,)
        self.indices = [times - 1 - step * times // steps for step in range(steps)]

    def noised(self, x0: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        level = self.level.to(x0)[index].view(-1, 1, 1, 1)
        return level.sqrt() * x0 + (1 - level).sqrt() * noise

    def step(self, noise: Tensor, index: int, z: Tensor) -> Tensor:
        before = index - (self.indices[0] - self.indices[1])
        here, there = float(self.level[index]), float(self.level[before]) if before >= 0 else 1.0
        x0 = (z - math.sqrt(1 - here) * noise) / math.sqrt(here)
        return math.sqrt(there) * x0 + math.sqrt(1 - there) * noise
