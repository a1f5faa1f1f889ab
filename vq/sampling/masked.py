"""Masked generation: the tokens that are hidden in training, and those that each decoding step fixes."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.sampling.keyed import FRACTION_BITS, fractions, mix, words

MaskSchedule = Literal['cosine', 'linear', 'square', 'arccos']
SCHEDULES: tuple[str, ...] = get_args(MaskSchedule)
BASES = (2, 3)  # of the Halton sequence: rows, columns


# how many tokens are hidden


def hidden_share(progress: Tensor, schedule: MaskSchedule = 'cosine') -> Tensor:
    """gamma(r): the share of tokens that is still hidden after the share r of the steps; 1 at 0, 0 at 1.

    (Chang et al. 2022, MaskGIT.) cosine: cos(pi r / 2), linear: 1 - r, square: 1 - r^2. arccos: 2 arccos(r) / pi
    (Besnier et al. 2025).

    In training r is uniform in [0, 1), so each share of hidden tokens is trained as often as it occurs in decoding. With the
    cosine, the share g to hide has the density 2 / (pi sqrt(1 - g^2)) and the distribution function 1 - 2 arccos(g) / pi.
    """
    if schedule == 'cosine':
        return torch.cos(progress * (math.pi / 2))
    if schedule == 'linear':
        return 1 - progress
    if schedule == 'square':
        return 1 - progress.square()
    return torch.acos(progress) * (2 / math.pi)


def hidden_counts(free: int, steps: int, schedule: MaskSchedule = 'cosine') -> list[int]:
    """The number of the ``free`` tokens hidden after step 1, 2, ..., T:  n_t = floor(free gamma(t / T)),  n_T = 0.

    Every step fixes at least one token: n_t is below n_(t-1), and at least T - t, one token for each later step. So there are
    T = min(steps, free) steps, none if no token is free.
    """
    steps = min(steps, free)
    if not steps:
        return []
    progress = torch.arange(1, steps + 1, dtype=torch.float64, device='cpu') / steps
    # rounding can put a product that is a whole number slightly below it
    wanted = (free * hidden_share(progress, schedule) + 1e-9).floor().long().tolist()
    counts = [free]
    for to_come, count in zip(reversed(range(steps)), wanted, strict=True):
        counts.append(max(to_come, min(counts[-1] - 1, count)))
    return counts[1:]


def truncated_normal_mask_ratio(
    uniform: Tensor, mean: float = 0.55, std: float = 0.25, low: float = 0.5, high: float = 1.0
) -> Tensor:
    """r = mean + std Phi^-1(Phi(a) + u (Phi(b) - Phi(a))),  a = (low - mean) / std,  b = (high - mean) / std.

    (Li et al. 2023, MAGE.) A normal number truncated to [low, high], drawn by its inverse distribution function.
    """
    first, last = (0.5 * (1 + math.erf((edge - mean) / (std * math.sqrt(2)))) for edge in (low, high))
    ratio: Tensor = mean + std * torch.special.ndtri(first + uniform * (last - first))
    return ratio.clamp(low, high)


def hide(ratio: Tensor, uniform: Tensor) -> Tensor:
    """ratio (B,), uniform (B, L) -> bool (B, L): ceil(r L) positions of every row, at least one; all sets equally likely."""
    return hide_first(uniform.argsort(dim=1, stable=True), ratio)


def hide_first(order: Tensor, ratio: Tensor, least: int = 1) -> Tensor:
    """order int64 (B, L), the positions in an order -> bool (B, L): the first ceil(r L) are hidden, at least ``least``."""
    length = order.shape[1]
    count = (ratio * length).ceil().clamp(least, length)
    return order.argsort(1) < count[:, None]


def uniforms_of_tokens(tokens: Tensor, count: int) -> Tensor:
    """tokens int64 (B, L) -> fp32 (B, count) in [0, 1): pseudorandom numbers that depend only on the tokens of the row.

    They are for draws that must be the same in every pass over a split, for any batches and ranks.
    """
    places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    keys = mix(tokens + mix(places)).sum(1)  # (B,), wraps around
    return fractions(words(keys, count))


# which tokens are fixed


def gumbel(uniform: Tensor) -> Tensor:
    """g = -log(-log u), from u in [0, 1); finite at 0."""
    return -torch.log(-torch.log(uniform.clamp(min=2.0 ** -(FRACTION_BITS + 1))))


def confidence(logits: Tensor, tokens: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """log p(token) + temperature g,  g Gumbel noise.  logits (..., V), tokens and uniform (...) -> fp32 (...).

    (MaskGIT; the temperature of step t of T is the initial one times 1 - t / T.)
    """
    log_p = -F.cross_entropy(logits.float().flatten(0, -2), tokens.flatten(), reduction='none').view(tokens.shape)
    return log_p + temperature * gumbel(uniform) if temperature else log_p


def most_confident(score: Tensor, hidden: Tensor, count: int) -> Tensor:
    """score and hidden (B, L) -> bool (B, L): the ``count`` hidden positions of the highest score in every row.

    Ties go to the first positions, so no row depends on how a device sorts.
    """
    order = score.masked_fill(~hidden, -math.inf).argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(hidden).scatter(1, order[:, :count], True)


@functools.cache
def halton_order(shape: tuple[int, ...]) -> tuple[int, ...]:
    """All positions of a grid (raster order h w), in the order a Halton sequence first visits them; of a line (L,), in base 2.

    (Besnier et al. 2025.) Point i = 1, 2, ... lies in row floor(h phi_2(i)) and column floor(w phi_3(i)), where phi_b
    mirrors the digits of i in base b at the point:  phi_b(sum_k d_k b^k) = sum_k d_k b^(-k-1).  So tokens fixed in the same
    step are far apart, and the grid fills evenly.
    """
    found: dict[int, None] = {}
    index = 0
    while len(found) < math.prod(shape):
        index += 1
        position = 0
        for size, base in zip(shape, BASES, strict=False):
            numerator, denominator = radical_inverse(index, base)
            position = position * size + numerator * size // denominator
        found.setdefault(position)
    return tuple(found)


def radical_inverse(index: int, base: int) -> tuple[int, int]:
    """phi_base(index) as numerator and denominator: integers, so that no point is rounded across the edge of a cell."""
    numerator, denominator = 0, 1
    while index:
        index, digit = divmod(index, base)
        numerator, denominator = numerator * base + digit, denominator * base
    return numerator, denominator


def steps_of_order(order: Iterable[int], length: int, counts: list[int]) -> Tensor:
    """The step (from 0) that fixes each position, int64 (length,), on the CPU; -1 for positions not in ``order``.

    ``counts`` of ``hidden_counts``: after step t, the last counts[t] positions of ``order`` are hidden.
    """
    steps = torch.full((length,), -1)
    positions = torch.tensor(list(order), dtype=torch.int64)
    fixed = len(positions) - torch.tensor(counts, dtype=torch.int64)  # after each step
    steps[positions] = torch.searchsorted(fixed, torch.arange(len(positions)), right=True)
    return steps
