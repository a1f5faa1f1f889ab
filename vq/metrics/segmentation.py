"""How well a segmenter labels pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.core.records import Batch, Outputs
from vq.interfaces import Metric
from vq.registries import VQMetricRegistry


@VQMetricRegistry.register_()
class SegmentationMetric(Metric):
    """Counts pixels by their label and by the label that they are given, over all images and ranks. K = ``classes``.

    - 'pixel_accuracy': the share of all pixels with the right label; nothing, where no thing is, is a label, too.
    - 'thing_accuracy': the same of the pixels of things.
    - 'nothing_share': the share of nothing, which is the pixel accuracy of a segmenter that finds no thing.
    - 'mean_iou': the mean, over the classes that are there or are given, of the pixels of a class that have its label, divided
      by those that are of it or have its label. Nothing is left out.
    """

    def __init__(self, classes: int, nothing: int = 255) -> None:
        if classes < 1 or 0 <= nothing < classes:
            raise ConfigError(f'classes is {classes} and nothing is {nothing}', 'Give those of the segmenter.')
        self.classes, self.nothing = classes, nothing
        self.reset()

    def reset(self) -> None:
        self._counts: Tensor | None = None  # (K + 1, K + 1) int64: rows are labels, columns what is given

    def update(self, batch: Batch, outputs: Outputs) -> None:
        if outputs.labels is None or batch.mask is None:
            missing = 'labels, and this model gives none' if outputs.labels is None else 'masks, and this dataset has none'
            raise ConfigError(f'the segmentation metric needs {missing}', 'Leave SegmentationMetric out of the metrics.')
        counts = confusion(batch.mask, outputs.labels, self.classes, self.nothing)
        self._counts = counts if self._counts is None else self._counts + counts

    def compute(self) -> dict[str, float]:
        none = torch.zeros(self.classes + 1, self.classes + 1, dtype=torch.int64)
        counts = sum(collectives.all_gather_object(none if self._counts is None else self._counts.cpu()), none)
        return figures_of(counts)


def confusion(mask: Tensor, labels: Tensor, classes: int, nothing: int = 255) -> Tensor:
    """Labels of the data and labels that are given, both (B, H, W) -> counts (K + 1, K + 1). Any other label is nothing."""
    true = torch.where(mask.long() == nothing, classes, mask.long()).flatten()
    pairs = true * (classes + 1) + labels.long().flatten().clamp(0, classes)
    counts = torch.zeros((classes + 1) ** 2, dtype=torch.int64, device=pairs.device)
    return counts.scatter_add_(0, pairs, torch.ones_like(pairs)).view(classes + 1, classes + 1)


def figures_of(counts: Tensor) -> dict[str, float]:
    """Counts (K + 1, K + 1), of which the last row and column are nothing."""
    right, total = counts.diagonal().double(), counts.sum().double()
    things = counts[:-1].sum().double()
    union = (counts.sum(0) + counts.sum(1) - counts.diagonal())[:-1].double()
    there = union > 0
    return {
        'pixel_accuracy': float(right.sum() / total),
        'thing_accuracy': float(right[:-1].sum() / things),
        'nothing_share': float(counts[-1].sum() / total),
        'mean_iou': float((right[:-1][there] / union[there]).mean()),
    }
