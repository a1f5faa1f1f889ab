"""A random choice of vectors that does not depend on how a global batch is cut into ranks and micro-batches.

Every vector gets a pseudo-random priority from (seed, number of the update, its place in the global batch); the R
highest win. Each process keeps its own R, and the R highest of all of those are the R highest of the whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

MASK = (1 << 24) - 1
MULTIPLIERS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F)  # odd, 32 bits: times 24 bits stays below 2^56
SECOND = 0x2C1B3C6D  # odd, 30 bits


def priorities(places: Tensor, seed: int, number: Tensor) -> Tensor:
    """Places (N,) below 2^48 -> distinct priorities (N,) in 1 .. 2^48.

    A Feistel network over two halves of 24 bits: a bijection, so no two places tie, and no product overflows int64.
    """
    left, right = (places >> 24) & MASK, places & MASK
    for turn, multiplier in enumerate(MULTIPLIERS):
        key = (number + 1) * (multiplier >> 7) + (seed & MASK) * (2 * turn + 1)
        mixed = ((right + key) & MASK) * multiplier
        mixed = ((mixed ^ (mixed >> 20)) & MASK) * SECOND
        left, right = right, left ^ ((mixed >> 18) & MASK)
    return ((left << 24) | right) + 1


def split(priority: Tensor) -> Tensor:
    """Priorities (R,) -> (R, 2) fp32 halves, each exact, so that they can travel among floats."""
    return torch.stack([priority >> 24, priority & MASK], dim=1).float()


def join(halves: Tensor) -> Tensor:
    """The inverse of ``split``."""
    return (halves[:, 0].long() << 24) + halves[:, 1].long()
