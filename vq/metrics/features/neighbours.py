"""Figures from nearest neighbours: precision and recall, density and coverage. Distances are computed block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.metrics.features.rows import check_pair

ROWS = 1024  # a block of distances is ROWS x COLUMNS x 8 bytes
COLUMNS = 4096
ROUNDING = 1e-12  # squared distances below this fraction of the squared lengths count as zero: features are fp32 at best
TIE = 1e-9  # squared distances with a relative difference below this count as equal


class PrecisionRecall(NamedTuple):
    precision: float
    recall: float
    neighbours: int


class DensityCoverage(NamedTuple):
    density: float
    coverage: float
    neighbours: int


def precision_recall(real: Tensor, generated: Tensor, neighbours: int = 3) -> PrecisionRecall:
    """Kynkaanniemi et al. 2019, of features (n, D) and (m, D).

    The manifold of a set is the union of balls around its rows. The radius of a ball is the distance to the row's k-th
    nearest neighbour within the set, without the row itself. The border belongs to the ball. Precision: the share of
    generated rows within the manifold of real rows. Recall: the share of real rows within the manifold of generated rows.
    """
    real, generated = _checked(real, generated, neighbours)
    real_radii, generated_radii = nearest(real, neighbours), nearest(generated, neighbours)  # squared, (n,) and (m,)
    precise = torch.zeros(len(generated), dtype=torch.bool, device=real.device)
    recalled = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows, columns, squared in squared_distances(real, generated):
        precise[columns] |= (squared <= real_radii[rows, None] * (1 + TIE)).any(0)
        recalled[rows] |= (squared <= generated_radii[None, columns] * (1 + TIE)).any(1)
    return PrecisionRecall(precise.double().mean().item(), recalled.double().mean().item(), neighbours)


def density_coverage(real: Tensor, generated: Tensor, neighbours: int = 5) -> DensityCoverage:
    """Naeem et al. 2020, of features (n, D) and (m, D), with balls around real rows as in ``precision_recall``.

    Density: the mean number of balls that contain a generated row, divided by k; it can be above 1. Coverage: the share of
    balls that contain a generated row. As in the authors' code, the border does not belong to the ball: then the density
    of a set with itself is 1.
    """
    real, generated = _checked(real, generated, neighbours)
    radii = nearest(real, neighbours)
    hits = torch.zeros((), dtype=torch.int64, device=real.device)
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows, _, squared in squared_distances(real, generated):
        inside = squared < radii[rows, None] * (1 - TIE)
        hits += inside.sum()
        covered[rows] |= inside.any(1)
    density = hits.item() / (neighbours * len(generated))
    return DensityCoverage(density, covered.double().mean().item(), neighbours)


def nearest(x: Tensor, neighbours: int) -> Tensor:
    """The squared distance (n,) of each row (n, D) to its k-th nearest other row."""
    found: dict[int, Tensor] = {}  # first row of a block -> the k smallest so far, (b, k)
    for rows, columns, squared in squared_distances(x, x):
        if rows.start < columns.stop and columns.start < rows.stop:  # mask distances of rows to themselves
            same = torch.arange(rows.start, rows.stop)[:, None] == torch.arange(columns.start, columns.stop)
            squared.masked_fill_(same.to(x.device), torch.inf)
        least = squared.topk(min(neighbours, squared.shape[1]), dim=1, largest=False).values
        if rows.start in found:
            least = torch.cat([found[rows.start], least], dim=1)
            least = least.topk(min(neighbours, least.shape[1]), dim=1, largest=False).values
        found[rows.start] = least
    return torch.cat([least.amax(1) for least in found.values()])


def squared_distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Blocks of |x_i - y_j|^2 in float64: a slice of rows of x (n, D), a slice of y (m, D), their squared distances."""
    y_lengths = y.square().sum(1)
    for first in range(0, len(x), ROWS):
        rows = slice(first, min(first + ROWS, len(x)))
        x_lengths = x[rows].square().sum(1)
        for second in range(0, len(y), COLUMNS):
            columns = slice(second, min(second + COLUMNS, len(y)))
            lengths = x_lengths[:, None] + y_lengths[columns]
            squared = torch.addmm(lengths, x[rows], y[columns].T, alpha=-2)
            yield rows, columns, squared.masked_fill_(squared < ROUNDING * lengths, 0)


def _checked(real: Tensor, generated: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """Both in float64, so that distances of equal rows are nearly zero, and ties nearly equal."""
    check_pair(real, generated)
    smaller = min(len(real), len(generated))
    if not 1 <= neighbours < smaller:
        raise UserError(
            f'among {smaller} samples there is no neighbour number {neighbours}', 'Give more images, or fewer neighbours.'
        )
    return real.double(), generated.double()
