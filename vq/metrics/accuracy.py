"""Accuracy of a classifier."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Batch, Outputs
from vq.metrics.samples import SampleMetric
from vq.registries import VQMetricRegistry


@VQMetricRegistry.register_()
class AccuracyMetric(SampleMetric):
    """'top1', 'top5': the share of distinct images whose category is among the k classes with the largest logits.

    Equal logits are ranked by class number, lower first; so a classifier with constant logits is not always right. An image
    with a NaN logit counts as wrong.
    """

    def __init__(self, top: list[int] | None = None) -> None:
        self.top = (1, 5) if top is None else tuple(top)
        if not self.top or min(self.top) < 1:
            raise ConfigError(f'top is {top}', 'Give a list of numbers from 1, such as [1, 5].')
        super().__init__()

    def update(self, batch: Batch, outputs: Outputs) -> None:
        logits = outputs.logits
        if logits is None or batch.category is None:
            missing = 'logits, and this model has none' if logits is None else 'categories, and this dataset has none'
            raise ConfigError(f'the accuracy needs {missing}', 'Leave AccuracyMetric out of the metrics.')
        self.add(batch, place_of(logits, batch.category), 1.0)

    def finish(self, figures: Tensor) -> dict[str, Tensor]:
        return {f'top{k}': (figures < k).double() for k in self.top}


def place_of(logits: Tensor, category: Tensor) -> Tensor:
    """Rank of the true class: logits (B, classes), category (B,) -> number of classes ranked before it, (B,) int64."""
    own = logits.gather(1, category[:, None])  # (B, 1)
    before = logits > own
    before |= (logits == own) & (torch.arange(logits.shape[1], device=logits.device) < category[:, None])
    places = before.sum(1)
    return torch.where(logits.isnan().any(1), torch.iinfo(torch.int32).max, places)
