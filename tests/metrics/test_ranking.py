"""The area under the ROC curve."""

from __future__ import annotations

import math

import pytest
import torch

from vq.metrics.ranking import auroc


def test_known_areas() -> None:
    assert auroc(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])) == 1
    assert auroc(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0])) == 0
    assert auroc(torch.tensor([1.0, 3.0]), torch.tensor([2.0])) == 0.5
    assert auroc(torch.ones(3), torch.ones(2)) == 0.5, 'ties are halves'
    assert auroc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0])) == 3.5 / 4
    assert math.isnan(auroc(torch.ones(0), torch.ones(2)))


@pytest.mark.parametrize('seed', range(3))
def test_it_is_that_of_scikit_learn(seed: int) -> None:
    from sklearn.metrics import roc_auc_score

    stream = torch.Generator().manual_seed(seed)
    low, high = (torch.randint(0, 20, (count,), generator=stream).float() + shift for count, shift in ((40, 0), (25, 3)))
    expected = roc_auc_score([0] * 40 + [1] * 25, torch.cat([low, high]).numpy())
    assert auroc(low, high) == pytest.approx(expected, abs=1e-12)
