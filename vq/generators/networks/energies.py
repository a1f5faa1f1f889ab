"""The transformer of the autoregressive energy model: it judges candidates for each token by the tokens before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.denoisers.blocks import EPS, FinalLayer, GeluMLP, modulated, reset

Cache = list[tuple[Tensor, Tensor]]  # keys and values (B, heads, T, D) of the tokens before, of each block


class EnergyBlock(nn.Module):
    """adaLN-zero on two streams (B, T, dim), tokens and candidates: tokens see those up to themselves; candidate j sees tokens
    up to j, the start counted, and itself. Attention is written out, so that it can be differentiated twice."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(dim, EPS, elementwise_affine=False) for _ in range(2))
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = GeluMLP(dim, int(mlp_ratio * dim))
        self.modulation = nn.Linear(dim, 6 * dim)

    def tokens(self, x: Tensor, c: Tensor, before: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, T, dim) behind the tokens of ``before`` -> the same, and keys and values of all."""
        parts = self.modulation(c).chunk(6, dim=-1)
        q, k, v = self._heads(modulated(self.norm1(x), parts[0], parts[1]))
        if before is not None:
            k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        return self._rest(x, masked(scores).softmax(-1) @ v, parts), (k, v)

    def candidates(self, x: Tensor, c: Tensor, known: tuple[Tensor, Tensor]) -> Tensor:
        """x (B, T, dim), candidates for the last T of as many places as there are keys (B, heads, T', D) in ``known``."""
        parts = self.modulation(c).chunk(6, dim=-1)
        q, k, v = self._heads(modulated(self.norm1(x), parts[0], parts[1]))
        scale = 1 / math.sqrt(q.shape[-1])
        others, own = masked(q @ known[0].transpose(-1, -2) * scale), (q * k).sum(-1, keepdim=True) * scale
        weights = torch.cat([others, own], -1).softmax(-1)
        return self._rest(x, weights[..., :-1] @ known[1] + weights[..., -1:] * v, parts)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, dim) -> three of (B, heads, T, D)."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def _rest(self, x: Tensor, mixed: Tensor, parts: Sequence[Tensor]) -> Tensor:
        x = x + parts[2] * self.proj(mixed.transpose(1, 2).flatten(2))
        y: Tensor = x + parts[5] * self.mlp(modulated(self.norm2(x), parts[3], parts[4]))
        return y


def masked(scores: Tensor) -> Tensor:
    """(..., T, T'): row j of the last T of T' places sees places up to its own."""
    rows, places = scores.shape[-2:]
    seen = torch.ones(rows, places, dtype=torch.bool, device=scores.device).tril(places - rows)
    return scores.masked_fill(~seen, -math.inf)


class EnergyTransformer(nn.Module):
    """Tokens (B, L, C), candidates for each (B, L, C) and a condition (B, dim) -> energies (B, L).

    E_j depends on the start, tokens 0 to j - 1 and candidate j. A candidate has the position that its token would have.
    """

    def __init__(self, channels: int, length: int, dim: int, depth: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        if depth < 1 or heads < 1 or dim % heads:
            raise ConfigError(f'{depth} blocks of {dim} channels with {heads} heads', 'Give a block; heads divide dim.')
        self.start, self.candidate = nn.Parameter(torch.empty(dim)), nn.Parameter(torch.empty(dim))
        self.positions = nn.Parameter(torch.empty(length + 1, dim))
        self.into = nn.Linear(channels, dim)
        self.blocks = nn.ModuleList(EnergyBlock(dim, heads, mlp_ratio) for _ in range(depth))
        self.final = FinalLayer(dim, 1)
        reset(self)
        self.final.linear.bias.requires_grad_(False)  # a constant has no slope, and DDP waits for every gradient
        for block in self.blocks:
            nn.init.zeros_(block.modulation.weight)  # type: ignore[union-attr, arg-type]
        for parameter in (self.start, self.candidate, self.positions):
            nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, candidates: Tensor, condition: Tensor) -> Tensor:
        return self.energies(candidates, condition, self.extended(None, tokens[:, :-1], condition))

    def extended(self, cache: Cache | None, tokens: Tensor, condition: Tensor) -> Cache:
        """Keys and values of the start and of tokens (B, T, C), or of those of ``cache`` and of the tokens behind them."""
        first = 0 if cache is None else cache[0][0].shape[2]
        x, c = self.into(tokens), F.silu(condition)[:, None]
        if cache is None:
            x = torch.cat([self.start.to(x.dtype).expand(len(x), 1, -1), x], 1)
        x = x + self.positions[first : first + x.shape[1]]
        found: Cache = []
        for place, block in enumerate(self.blocks):
            assert isinstance(block, EnergyBlock)
            x, known = block.tokens(x, c, None if cache is None else cache[place])
            found.append(known)
        return found

    def energies(self, candidates: Tensor, condition: Tensor, cache: Cache) -> Tensor:
        """(B, T), of candidates (B, T, C) for the token behind each of the last T places of ``cache``."""
        end, c = cache[0][0].shape[2] + 1, F.silu(condition)[:, None]
        x = self.into(candidates) + self.candidate + self.positions[end - candidates.shape[1] : end]
        for block, known in zip(self.blocks, cache, strict=True):
            assert isinstance(block, EnergyBlock)
            x = block.candidates(x, c, known)
        found: Tensor = self.final(x, c)[..., 0]
        return found
