"""Lloyd's k-means over the features of all ranks, to initialise codebooks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core import collectives
from vq.quantizers.search import Metric, nearest_code
from vq.quantizers.updates.draw import keep_best, places_of, priorities, winners


@dataclasses.dataclass
class Clusters:
    """The result of k-means, bitwise equal on every rank."""

    centres: Tensor  # (K, C)
    counts: Tensor  # (K,) features per centre
    inertia: list[float]  # mean squared distance to the nearest centre: at the start, and after each iteration


def draw_features(batches: Sequence[Tensor], count: int, seed: int, number: int) -> tuple[Tensor, Tensor]:
    """Draw ``count`` features (count, C) uniformly without replacement from batches (n, C) of all ranks; which exist (count,).

    Every batch is split evenly over the ranks. The draw does not depend on the number of ranks.
    """
    first = batches[0]
    pool, priority = first.new_zeros(count, first.shape[1]), torch.zeros(count, dtype=torch.int64, device=first.device)
    seen = priority.new_zeros(())
    for batch in batches:
        places = places_of(len(batch), seen, batch.device)
        pool, priority = keep_best(pool, priority, batch, priorities(places, seed, seen.new_tensor(number)))
        seen = seen + len(batch)
    share, there = winners(pool, priority)
    return collectives.all_reduce(share), there


@torch.no_grad()
def kmeans(
    batches: Sequence[Tensor],
    codes: int,
    metric: Metric = 'l2',
    iterations: int = 10,
    seed: int = 0,
    start: Tensor | None = None,
) -> Clusters:
    """k_i = argmin_k |x_i - m_k|^2,  m_k = the mean of the x_i with k_i = k;  ``iterations`` times.

    With a cosine metric features are scaled to unit length, and m_k is the mean's direction (spherical k-means, Dhillon
    and Modha 2001). The initial centres are ``start`` (K, C), by default random features. In every iteration a centre
    without features moves to a random feature. No iteration raises the inertia.
    """
    batches = [F.normalize(batch.float(), dim=1) if metric == 'cosine' else batch.float() for batch in batches]
    rows = torch.cat(list(batches))  # (N, C)
    total = len(rows) * collectives.size()
    centres = draw_features(batches, codes, seed, 0)[0] if start is None else start
    inertia = []
    for iteration in range(iterations + 1):
        counts, sums, cost = _assign(rows, centres, metric)
        inertia.append(float(cost) / total)
        if iteration == iterations:
            break
        means = sums / counts.clamp_min(1)[:, None]
        empty = counts == 0
        if empty.any():
            fresh, there = draw_features(batches, codes, seed, iteration + 1)
            means = torch.where(empty[:, None], torch.where(there[:, None], fresh, centres), means)
        centres = F.normalize(means, dim=1) if metric == 'cosine' else means
    return Clusters(centres, counts, inertia)


def _assign(rows: Tensor, centres: Tensor, metric: Metric) -> tuple[Tensor, Tensor, Tensor]:
    """Over all ranks, by one all-reduce: features per centre (K,), their sums (K, C), and the sum of squared distances ()."""
    tokens = nearest_code(rows, centres, metric)
    counts = torch.zeros_like(centres[:, 0]).index_add_(0, tokens, torch.ones_like(rows[:, 0]))
    sums = torch.zeros_like(centres).index_add_(0, tokens, rows)
    cost = (rows - F.embedding(tokens, centres)).square().sum()
    flat = collectives.all_reduce(torch.cat([counts, sums.flatten(), cost[None]]))
    return flat[: len(centres)], flat[len(centres) : -1].view(centres.shape), flat[-1]


@torch.no_grad()
def mean_lengths(batches: Sequence[Tensor], directions: Tensor) -> Tensor:
    """Directions d (K, C) of unit length -> s (K, 1): s_k is the mean of x_i . d_k over the features x_i nearest to d_k.

    Of all multiples of d_k, s_k d_k is nearest to these features. s_k is 1 without features, or if the mean is not positive.
    """
    rows = torch.cat([batch.float() for batch in batches])
    tokens = nearest_code(rows, directions, 'cosine')
    along = (rows * F.embedding(tokens, directions)).sum(1)
    sums = torch.zeros_like(directions[:, 0]).index_add_(0, tokens, along)
    counts = torch.zeros_like(sums).index_add_(0, tokens, torch.ones_like(along))
    sums, counts = collectives.all_reduce(torch.stack([sums, counts])).unbind()
    return torch.where(sums > 0, sums / counts.clamp_min(1), torch.ones_like(sums))[:, None]
