"""Kernel distances between sets: KID (a cubic polynomial) and CMMD (a Gaussian), in blocks, without an n x n matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.core.random import derive_seed
from vq.metrics.features.rows import check_pair

ROWS = 1024  # a block of kernel values is ROWS x COLUMNS x 8 bytes
COLUMNS = 4096

Kernel = Callable[[Tensor, Tensor], Tensor]  # (a, D), (b, D) -> (a, b)


class KernelDistance(NamedTuple):
    """Mean and (population) standard deviation over subsets, and the settings of the subsets."""

    mean: float
    std: float
    subsets: int
    subset_size: int
    seed: int


def kernel_distance(a: Tensor, b: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> KernelDistance:
    """KID (Binkowski et al. 2018): the mean of ``polynomial_mmd`` over pairs of subsets of features (n, D) and (m, D).

    Each subset is drawn without replacement, from ``seed`` alone. Subsets are row numbers, so rows must be in the order of
    the samples' keys: then the figure does not depend on the order of samples.
    """
    _check(a, b)
    smaller = min(len(a), len(b))
    if not 2 <= subset_size <= smaller:
        raise UserError(
            f'subsets of {subset_size:,} cannot be drawn from {smaller:,} samples',
            f'Give more images, or subsets of 2 to {smaller:,}; figures with other subset sizes differ in their spread.',
        )
    distances = torch.tensor(
        [
            polynomial_mmd(_subset(a, subset_size, seed, 'a', number), _subset(b, subset_size, seed, 'b', number))
            for number in range(subsets)
        ],
        dtype=torch.float64,
    )
    return KernelDistance(distances.mean().item(), distances.std(correction=0).item(), subsets, subset_size, seed)


def polynomial_mmd(a: Tensor, b: Tensor) -> float:
    """The squared MMD of k(x, y) = (x.y / D + 1)^3, unbiased, over all rows of (n, D) and (m, D).

    sum_{i != j} k(a_i, a_j) / (n (n - 1)) + the same of b - 2 sum_ij k(a_i, b_j) / (n m). The cross term includes its
    diagonal, as in the paper, torch-fidelity and torchmetrics. The result can be below zero.
    """
    _check(a, b)
    within = [(_sum(x, x, _cubic) - _diagonal(x)) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return within[0] + within[1] - 2 * _sum(a, b, _cubic) / (len(a) * len(b))


def cmmd(a: Tensor, b: Tensor) -> float:
    """1000 times the squared MMD of k(x, y) = exp(-|x - y|^2 / (2 * 10^2)) of embeddings (n, D), (m, D) (Jayasumana 2024).

    Rows are normalized to unit length first. As in the authors' code, and unlike the paper's text, all pairs count, also
    those of a row with itself (the V-statistic): mean k(a, a) + mean k(b, b) - 2 mean k(a, b). For equal distributions the
    result is about (1 - mean k) (1 / n + 1 / m) * 1000, not zero. Sums are of k - 1, because k is close to 1: in float32,
    which the authors' code uses, five of seven digits cancel.
    """
    _check(a, b)
    a, b = (torch.nn.functional.normalize(x.double(), dim=1) for x in (a, b))
    within = [_sum(x, x, _gaussian) / len(x) ** 2 for x in (a, b)]
    return max(1000 * (within[0] + within[1] - 2 * _sum(a, b, _gaussian) / (len(a) * len(b))), 0.0)


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    base = torch.addmm(x.new_ones(()), x, y.T, alpha=1 / x.shape[1])
    return base.square().mul_(base)


def _gaussian(x: Tensor, y: Tensor) -> Tensor:
    """k - 1 for rows of unit length, where |x - y|^2 = 2 - 2 x.y."""
    return torch.addmm(x.new_full((), -0.01), x, y.T, alpha=0.01).clamp_max_(0).expm1_()


def _diagonal(x: Tensor) -> float:
    """sum_i k(x_i, x_i) of the cubic kernel."""
    return sum(((part.double().square().sum(1) / x.shape[1] + 1) ** 3).sum().item() for part in torch.split(x, ROWS))


def _sum(x: Tensor, y: Tensor, kernel: Kernel) -> float:
    """The sum of the kernel over all pairs. If x is y, each pair of different blocks is computed once and counted twice."""
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for first, second, weight in _blocks(x, y):
        total += weight * kernel(first.double(), second.double()).sum()
    return total.item()


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
    if x is y:
        for start in range(0, len(x), ROWS):
            rows = x[start : start + ROWS]
            yield rows, rows, 1
            for other in range(start + ROWS, len(x), COLUMNS):
                yield rows, x[other : other + COLUMNS], 2
        return
    for rows in torch.split(x, ROWS):
        for columns in torch.split(y, COLUMNS):
            yield rows, columns, 1


def _subset(x: Tensor, size: int, seed: int, side: str, number: int) -> Tensor:
    """``size`` rows without replacement.

    Computed from raw words of a counter-based generator, whose stream NumPy guarantees to keep.
    """
    words = np.random.Philox(key=derive_seed('kernel distance', seed, side, number)).random_raw(len(x))
    return x[torch.from_numpy(np.argsort(words, kind='stable')[:size]).to(x.device)]


def _check(a: Tensor, b: Tensor) -> None:
    check_pair(a, b)
    if min(len(a), len(b)) < 2:
        raise UserError(f'sets of {len(a)} and {len(b)} samples have no distance', 'Give at least 2 images of each.')
