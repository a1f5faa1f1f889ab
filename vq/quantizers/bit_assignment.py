"""Soft assignments to the 2^d sign patterns of d bits. p factorises over the bits, so no table of codes is needed.

p(b | l) = prod_j sigmoid(b_j l_j),  b in {-1, 1}^d
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vq.nn.precision import exact_matmul
from vq.quantizers.soft_assignment import FLOOR, default_budget, row_tiles


def pattern_probabilities(logits: Tensor) -> Tensor:
    """Logits (n, g) -> p of all patterns (n, 2^g); the first bit is the most significant."""
    positive, negative = torch.sigmoid(logits), torch.sigmoid(-logits)
    p = logits.new_ones(len(logits), 1)
    for bit in range(logits.shape[1]):
        pair = torch.stack([negative[:, bit], positive[:, bit]], dim=1)  # (n, 2)
        p = (p[:, :, None] * pair[:, None, :]).flatten(1)
    return p


def bit_entropy(logits: Tensor) -> Tensor:
    """Mean over rows of the entropy of p, exactly: the sum over bits of their entropies. logits (N, d) -> ()."""
    size = logits.abs()
    return (F.softplus(-size) + size * torch.sigmoid(-size)).sum(-1).mean()


def clamped_entropy(logits: Tensor, budget_bytes: int | None = None) -> Tensor:
    """``bit_entropy`` with log max(p, 1e-5) in place of log p. Visits all 2^d patterns, one tile of rows at a time."""

    def of_tile(tile: Tensor) -> Tensor:
        p = pattern_probabilities(tile)
        return -(p * p.clamp_min(FLOOR).log()).sum()

    return _sum_over_tiles(of_tile, logits, 2 ** logits.shape[1], budget_bytes) / len(logits)


def mean_pattern(logits: Tensor, budget_bytes: int | None = None) -> Tensor:
    """Mean over rows of p, exactly: (N, d) -> (2^d,), the first bit the most significant.

    A and B hold the pattern probabilities of the first and the second half of the bits. sum_i p_i = A'B needs
    N (2^(d/2) + 2^(d - d/2)) numbers instead of N 2^d.
    """
    half = logits.shape[1] // 2

    def of_tile(tile: Tensor) -> Tensor:
        first, second = pattern_probabilities(tile[:, :half]), pattern_probabilities(tile[:, half:])
        if torch.compiler.is_compiling():
            return first.t() @ second
        with exact_matmul():
            return first.t() @ second

    width = 2 ** (logits.shape[1] - half)
    return _sum_over_tiles(of_tile, logits, width, budget_bytes).flatten() / len(logits)


def _sum_over_tiles(of_tile: Callable[[Tensor], Tensor], logits: Tensor, width: int, budget_bytes: int | None) -> Tensor:
    """Sum ``of_tile`` over tiles of rows. With several tiles, backward recomputes each one (activation checkpointing)."""
    budget_bytes = default_budget(logits.device) if budget_bytes is None else budget_bytes
    tiles = list(row_tiles(len(logits), width, budget_bytes))
    if len(tiles) <= 1:
        return of_tile(logits)
    first, *others = (checkpoint(of_tile, logits[tile], use_reentrant=False, preserve_rng_state=False) for tile in tiles)
    total: Tensor = sum(others, start=first)
    return total
