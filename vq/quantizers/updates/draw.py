"""A random choice of vectors that does not depend on how a global batch is cut into ranks and micro-batches.

Every vector gets a pseudo-random priority from (seed, number of the update, its place in the global batch); the R
highest win. Each process keeps its own R, and the R highest of all of those are the R highest of the whole batch.

(A codebook that is used several times in one forward sees the features of a micro-batch use after use: cut into
micro-batches, the same features come in another order, and others of them are drawn. Ranks make no difference.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core import collectives

MASK = (1 << 24) - 1
MULTIPLIERS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F)  # odd, 32 bits: times 24 bits stays below 2^56
WORD = (1 << 32) - 1
MIXERS = (0x45D9F3B5, 0x2C1B3C6D)  # odd, 31 bits
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


def places_of(size: int, seen: Tensor, device: torch.device) -> Tensor:
    """The places (N,) in the global batch of the next ``size`` vectors on this rank, which has ``seen`` () before.

    Ranks hold equal shares of every micro-batch, one after the other.
    """
    return seen * collectives.size() + collectives.rank() * size + torch.arange(size, device=device)


def keep_best(pool: Tensor, priority: Tensor, features: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """The R highest of a pool (R, C) with priorities (R,) and of new features (N, C) with theirs, in their order."""
    best, index = torch.cat([priority, drawn]).topk(len(priority))
    return torch.cat([pool, features])[index], best


def winners(pool: Tensor, priority: Tensor) -> tuple[Tensor, Tensor]:
    """Every rank's R highest -> (this rank's part of the R highest of all, zeros elsewhere (R, C); which are there (R,)).

    The sum over ranks is all of them. So priorities travel first, by one all-reduce here, and then R vectors, instead of R
    from every rank.
    """
    size = len(priority)
    slots = pool.new_zeros(collectives.size(), size, 2)
    slots[collectives.rank()] = split(priority)
    best, index = join(collectives.all_reduce(slots).view(-1, 2)).topk(size)
    place = index - collectives.rank() * size
    mine = (place >= 0) & (place < size) & (best > 0)
    return torch.where(mine[:, None], pool[place.clamp(0, size - 1)], torch.zeros_like(pool)), best > 0


def gumbel_noise(places: Tensor, codes: Tensor, seed: int, number: Tensor) -> Tensor:
    """Places (N,), numbers of codes (k,) -> (k, N) draws from Gumbel(0, 1): -log(-log(1 - v)), v evenly distributed.

    v is a function of (place, code, seed, number) alone: a random word of 32 bits per place and one per code, joined, and
    mixed by two rounds of shift and multiplication. Few operations, because K x N of them are made.
    """
    by_place, by_code = priorities(places, seed, number) & WORD, priorities(codes, seed + 1, number) & WORD
    word = by_place ^ by_code[:, None]  # (k, N) int64 below 2^32; products with 31 bits do not overflow
    word ^= word >> 16
    word *= MIXERS[0]
    word &= WORD
    word ^= word >> 13
    word *= MIXERS[1]
    word &= WORD
    word ^= word >> 16
    # fp32 is fine near 0, where the largest draws come from
    v = word.float().add_(0.5).mul_(2.0**-32).clamp_max_(1 - 2.0**-24)
    return v.neg_().log1p_().neg_().log_().neg_()
