"""A random choice of vectors that does not depend on how a global batch is split over ranks and micro-batches.

Every vector gets a pseudo-random priority from (seed, number of the update, its place in the global batch). The R vectors
of the highest priorities are chosen. Each rank keeps its R highest; the R highest among those are the R highest of the batch.

(Exception: a codebook that is used several times in one forward sees the features of a micro-batch use after use. The number
of micro-batches then changes the order of the features, and with it the choice. The number of ranks does not.)
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
    """Priorities (R,) -> (R, 2) fp32 halves, each exact, so that floats and priorities can share an all-reduce."""
    return torch.stack([priority >> 24, priority & MASK], dim=1).float()


def join(halves: Tensor) -> Tensor:
    """The inverse of ``split``."""
    return (halves[:, 0].long() << 24) + halves[:, 1].long()


def places_of(size: int, seen: Tensor, device: torch.device) -> Tensor:
    """The places (N,) in the global batch of the next ``size`` vectors of this rank; ``seen`` () vectors came before.

    Every micro-batch is split evenly over the ranks, in rank order.
    """
    return seen * collectives.size() + collectives.rank() * size + torch.arange(size, device=device)


def keep_best(pool: Tensor, priority: Tensor, features: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """The R vectors of the highest priorities, and these priorities, both in falling order of priority.

    The vectors are a pool (R, C) with priorities (R,), and new features (N, C) with priorities ``drawn`` (N,).
    """
    best, index = torch.cat([priority, drawn]).topk(len(priority))
    return torch.cat([pool, features])[index], best


def winners(pool: Tensor, priority: Tensor) -> tuple[Tensor, Tensor]:
    """Every rank's R vectors -> (the R highest of all ranks (R, C), zero where another rank holds them; which exist (R,)).

    The sum of the first result over ranks gives all R vectors. So one all-reduce of priorities here and one of R vectors by
    the caller replace a gather of R vectors from every rank.
    """
    size = len(priority)
    slots = pool.new_zeros(collectives.size(), size, 2)
    slots[collectives.rank()] = split(priority)
    best, index = join(collectives.all_reduce(slots).view(-1, 2)).topk(size)
    place = index - collectives.rank() * size
    mine = (place >= 0) & (place < size) & (best > 0)
    return torch.where(mine[:, None], pool[place.clamp(0, size - 1)], torch.zeros_like(pool)), best > 0


def gumbel_noise(places: Tensor, codes: Tensor, seed: int, number: Tensor) -> Tensor:
    """Places (N,), numbers of codes (k,) -> (k, N) draws from Gumbel(0, 1): -log(-log(1 - v)), v uniform in (0, 1).

    v is a function of (place, code, seed, number) alone: a random 32-bit word per place and one per code are combined by XOR
    and mixed by two rounds of shift and multiplication. Few operations, because K x N draws are made.
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
    # the largest draws come from v near 0, where fp32 has a high resolution
    v = word.float().add_(0.5).mul_(2.0**-32).clamp_max_(1 - 2.0**-24)
    return v.neg_().log1p_().neg_().log_().neg_()
