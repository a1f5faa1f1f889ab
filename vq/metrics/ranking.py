"""How well one number tells two groups apart."""

from __future__ import annotations

import torch
from torch import Tensor


def auroc(low: Tensor, high: Tensor) -> float:
    """The area under the ROC curve of scores (N,) and (M,): the probability that one of ``high`` is above one of ``low``, ties
    counted as halves. 1: all are, 0.5: no difference. By ranks (Mann-Whitney)."""
    if not len(low) or not len(high):
        return float('nan')
    _, place, counts = torch.unique(torch.cat([low, high]).double(), return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    ranks = (ends - (counts.double() - 1) / 2)[place[len(low) :]]  # from 1; of equal values, their mean
    least = len(high) * (len(high) + 1) / 2
    return float((ranks.sum() - least) / (len(low) * len(high)))
