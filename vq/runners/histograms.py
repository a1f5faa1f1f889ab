"""Norms and histograms of tensors, also of tensors that lie in parts on several ranks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from vq.core import collectives

CHUNK = 2**22  # numbers that are counted at once: their places take eight bytes each


@dataclasses.dataclass(frozen=True)
class Histogram:
    """``counts[i]`` of the values are in bin i of equal bins from ``low`` to ``high``. Those that are not finite are apart."""

    low: float
    high: float
    counts: tuple[int, ...]
    not_finite: int
    sum: float
    norm: float  # the root of the sum of squares, of finite values

    @property
    def edges(self) -> list[float]:
        """One more than there are bins."""
        width = (self.high - self.low) / len(self.counts)
        return [*(self.low + width * place for place in range(len(self.counts))), self.high]

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclasses.dataclass(frozen=True)
class Measured:
    """Results on the device, before the host reads them. Rows are tensors, in order of ``names``."""

    names: tuple[str, ...]
    limits: Tensor  # (n, 2) fp32: low and high
    counts: Tensor  # (n, bins + 1) int64: the last column counts what is not finite
    sums: list[Tensor]  # (n, 2) fp32 of each rank: sum and norm of finite values

    def read(self) -> dict[str, Histogram]:
        """Name -> histogram, of the tensors that have values. The host waits for the device."""
        limits, counts = self.limits.tolist(), self.counts.tolist()
        sums = [part.tolist() for part in self.sums]
        found = {}
        for row, name in enumerate(self.names):
            if any(counts[row]):
                total = math.fsum(part[row][0] for part in sums)
                norm = math.hypot(*(part[row][1] for part in sums))
                low, high = limits[row]
                found[name] = Histogram(low, high, tuple(counts[row][:-1]), counts[row][-1], total, norm)
        return found


@torch.no_grad()
def measure(parts: Mapping[str, Tensor], bins: int, joined: bool) -> Measured:
    """Histograms of the tensors, which may be empty. ``joined``: those of all ranks together; every rank has the same names.

    No host sync.
    """
    values = [part.detach().float().flatten() for part in parts.values()]
    ends = torch.stack([_ends(value) for value in values])  # (n, 2): high and -low
    if joined:
        ends = collectives.all_reduce(ends, 'max')
    high, low = ends[:, 0], -ends[:, 1]
    none = ~(low <= high)  # no finite value
    low, high = torch.where(none, 0.0, low), torch.where(none, 0.0, high)
    same = low == high
    low, high = torch.where(same, low - 0.5, low), torch.where(same, high + 0.5, high)
    limits = torch.stack([low, high], dim=1)
    counts = torch.stack([_counts(value, low[row], high[row], bins) for row, value in enumerate(values)])
    sums = torch.stack([_sums(value) for value in values])
    if not joined:
        return Measured(tuple(parts), limits, counts, [sums])
    return Measured(tuple(parts), limits, collectives.all_reduce(counts), collectives.all_gather(sums))


def _ends(value: Tensor) -> Tensor:
    """(2,): the largest finite value and that of -value; -inf if there is none."""
    if not value.numel():
        return value.new_full((2,), -torch.inf)
    finite = value.isfinite()
    return torch.stack([torch.where(finite, each, -torch.inf).amax() for each in (value, -value)])


def _counts(value: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """(bins + 1,)"""
    counts = torch.zeros(bins + 1, dtype=torch.int64, device=value.device)
    for part in torch.split(value, CHUNK) if value.numel() else ():
        place = ((part - low) / (high - low) * bins).nan_to_num(0.0).clamp(0, bins - 1)
        place = torch.where(part.isfinite(), place, float(bins)).long()
        counts.scatter_add_(0, place, torch.ones_like(place))
    return counts


def _sums(value: Tensor) -> Tensor:
    """(2,): sum and norm of finite values."""
    finite = torch.where(value.isfinite(), value, 0.0)
    return torch.stack([finite.sum(), torch.linalg.vector_norm(finite)])
