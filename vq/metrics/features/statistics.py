"""Count, mean and covariance of features, in one pass and in memory that does not depend on their number."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import UserError

BLOCK = 512  # rows per matrix product; 1,024 (x D x 8 bytes) would gain little
PANEL = 512  # columns of the product that are computed at a time


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and covariance of a set, for a Frechet distance. ``count`` is None if a file does not record it."""

    mean: Tensor  # (D,) float64
    covariance: Tensor  # (D, D) float64, divided by count - 1
    count: int | None = None


class FeatureStatistics:
    """Mean m = sum x / n and covariance C = sum (x - m)(x - m)^T / (n - 1) of rows x (D,), in float64 on the host.

    Rows are collected into blocks of ``BLOCK``, independent of batches. One float64 product per block adds X^T X to the
    scatter; with products of single rows a set of 50,000 x 2,048 takes 200 times as long. The mean of the first block is
    subtracted from X, so that a large offset causes no cancellation. The scatter is symmetric, so only panels on and above
    the diagonal are computed: 5/8 of the product.

    ``merge`` combines two statistics (Chan, Golub and LeVeque 1979): with d = m_b - m_a, the scatter is
    S_a + S_b + d d^T n_a n_b / (n_a + n_b).
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._count = 0  # rows in the sums, without those in the buffer
        self._broken = 0  # of these, rows with a number that is not finite
        self._origin: Tensor | None = None  # (D,)
        self._sum = torch.zeros(dimension, dtype=torch.float64)  # sum of x - origin
        self._scatter = torch.zeros(dimension, dimension, dtype=torch.float64)  # sum of outer products; upper panels only
        self._waiting = torch.empty(BLOCK, dimension, dtype=torch.float64)
        self._filled = 0

    @property
    def count(self) -> int:
        return self._count + self._filled

    def update(self, features: Tensor) -> None:
        """Add rows (B, D) of any float dtype. Causes a host sync; ``FeatureStore`` avoids it."""
        if features.ndim != 2 or features.shape[1] != self.dimension:
            raise ValueError(f'features {tuple(features.shape)} are not rows of {self.dimension}')
        features = features.detach().cpu()
        while len(features):
            part, features = features[: BLOCK - self._filled], features[BLOCK - self._filled :]
            self._waiting[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            if self._filled == BLOCK:
                self._fold()

    def _fold(self) -> None:
        """Add the buffered rows to the sums."""
        rows = self._waiting[: self._filled]  # (b, D)
        self._filled = 0
        if not len(rows):
            return
        self._count += len(rows)
        self._broken += int((~rows.sum(1).isfinite()).sum())
        if self._origin is None:
            self._origin = rows.mean(0)
        rows -= self._origin
        self._sum += rows.sum(0)
        for start in range(0, self.dimension, PANEL):
            panel = slice(start, start + PANEL)
            self._scatter[panel, start:].addmm_(rows[:, panel].T, rows[:, start:])

    def merge(self, other: FeatureStatistics) -> None:
        """Add the rows of ``other``, which must have the same dimension and is not changed."""
        if other.dimension != self.dimension:
            raise ValueError(f'features of {other.dimension} and {self.dimension} dimensions cannot be merged')
        if not other.count:
            return
        if not self.count:
            self.load_state_dict(other.state_dict())
            return
        mean, scatter = self._centred()
        difference, added = other._centred()
        difference -= mean
        total = self._count + other._count
        scatter += added
        scatter.addr_(difference, difference, alpha=self._count * other._count / total)
        self._set(total, self._broken + other._broken, mean + difference * (other._count / total), scatter)

    def _centred(self) -> tuple[Tensor, Tensor]:
        """The mean (D,), and the full scatter (D, D) around it, as new tensors."""
        self._fold()
        if self._origin is None:
            return torch.zeros_like(self._sum), torch.zeros_like(self._scatter)
        scatter = self._scatter.addr(self._sum, self._sum, alpha=-1 / self._count).triu_()
        return self._origin + self._sum / self._count, scatter + scatter.triu(1).T

    def _set(self, count: int, broken: int, mean: Tensor, scatter: Tensor) -> None:
        self._count, self._broken, self._filled = count, broken, 0
        self._origin = mean if count else None
        self._sum = torch.zeros(self.dimension, dtype=torch.float64)
        self._scatter = scatter

    def compute(self) -> Moments:
        mean, scatter = self._centred()
        if self._broken:
            raise UserError(
                f'{self._broken:,} of {self._count:,} rows of features hold NaN or infinite numbers',
                'Check the images, and run the feature network in fp32.',
            )
        if self._count < 2:
            raise UserError(f'a covariance needs 2 samples, and there are {self._count}', 'Give more images.')
        return Moments(mean, scatter / (self._count - 1), self._count)

    def state_dict(self) -> dict[str, Tensor]:
        mean, scatter = self._centred()
        return {'count': torch.tensor(self._count), 'broken': torch.tensor(self._broken), 'mean': mean, 'scatter': scatter}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        mean, scatter = state['mean'].double(), state['scatter'].double()
        if scatter.shape != (self.dimension, self.dimension):
            raise ValueError(f'statistics of {len(mean)} numbers where {self.dimension} were expected')
        self._set(int(state['count']), int(state['broken']), mean.clone(), scatter.clone())


def joined_over_ranks(mine: FeatureStatistics | None) -> FeatureStatistics | None:
    """The combined statistics of all ranks, bitwise equal on every rank; None if no rank has features.

    The scatter is gathered panel by panel, so that no rank holds the scatters of all others at once.
    """
    state = None if mine is None or not mine.count else mine.state_dict()
    if collectives.size() == 1:
        return mine
    small = {name: state[name] for name in ('count', 'broken', 'mean')} if state is not None else None
    known = [part for part in collectives.all_gather_object(small) if part is not None]
    if not known:
        return None
    counts = [int(part['count']) for part in known]
    total = sum(counts)
    mean = torch.stack([part['mean'] * (count / total) for part, count in zip(known, counts, strict=True)]).sum(0)
    dimension = len(mean)
    if any(len(part['mean']) != dimension for part in known):
        raise UserError('ranks hold features of different sizes', 'Give all ranks the same network.')
    if state is not None:
        difference = state['mean'] - mean
        state['scatter'].addr_(difference, difference, alpha=int(state['count']))
    panels = []
    for start in range(0, dimension, PANEL):
        panel = None if state is None else state['scatter'][start : start + PANEL].clone()
        parts = [part for part in collectives.all_gather_object(panel) if part is not None]
        panels.append(sum(parts[1:], parts[0]))
    joined = FeatureStatistics(dimension)
    broken = sum(int(part['broken']) for part in known)
    joined._set(total, broken, mean, torch.cat(panels))
    return joined
