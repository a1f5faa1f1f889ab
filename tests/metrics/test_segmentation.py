"""The metric of segmenters equals scikit-learn's figures, over batches and ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score

from vq.core.errors import ConfigError
from vq.core.records import Batch, Outputs
from vq.metrics.segmentation import SegmentationMetric

CLASSES = 4


def batch(mask: torch.Tensor | None) -> Batch:
    return Batch(None, ['a', 'b', 'c'], torch.arange(3), mask=mask)


def test_figures_are_those_of_scikit_learn() -> None:
    stream = torch.Generator().manual_seed(0)
    metric, true, given = SegmentationMetric(CLASSES), [], []
    for _ in range(2):
        mask = torch.randint(CLASSES, (3, 6, 5), generator=stream)  # class 3 is there, and never given
        mask[torch.rand(mask.shape, generator=stream) < 0.4] = 255
        labels = torch.randint(CLASSES, (3, 6, 5), generator=stream)
        labels[labels == 3] = CLASSES
        metric.update(batch(mask), Outputs(labels=labels))
        true.append(torch.where(mask == 255, CLASSES, mask).flatten().numpy())
        given.append(labels.flatten().numpy())
    y, z = np.concatenate(true), np.concatenate(given)
    counts = confusion_matrix(y, z, labels=range(CLASSES + 1))
    found = metric.compute()
    assert found['pixel_accuracy'] == pytest.approx((y == z).mean())
    assert found['thing_accuracy'] == pytest.approx((y == z)[y < CLASSES].mean())
    assert found['nothing_share'] == pytest.approx(counts[-1].sum() / counts.sum())
    assert found['mean_iou'] == pytest.approx(jaccard_score(y, z, labels=range(CLASSES), average='macro', zero_division=0))


def test_what_lacks_labels_or_masks_is_refused() -> None:
    metric = SegmentationMetric(CLASSES)
    with pytest.raises(ConfigError, match='needs labels'):
        metric.update(batch(torch.zeros(3, 2, 2)), Outputs())
    with pytest.raises(ConfigError, match='needs masks'):
        metric.update(batch(None), Outputs(labels=torch.zeros(3, 2, 2)))
    with pytest.raises(ConfigError, match='classes is 0'):
        SegmentationMetric(0)
