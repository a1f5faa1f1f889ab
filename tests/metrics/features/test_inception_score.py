"""The Inception Score against torch-fidelity and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vq.core.errors import UserError
from vq.metrics.features.inception_score import inception_score


def logits_of(count=203, classes=17, dtype=torch.float32, scale=3.0):
    return (torch.randn(count, classes, generator=torch.Generator().manual_seed(0)) * scale).to(dtype)


@pytest.mark.parametrize('splits', [1, 4, 10, 203])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_against_torch_fidelity(splits, dtype):
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = logits_of(dtype=dtype)
    expected = isc_features_to_metric(logits, splits=splits, shuffle=False)
    found = inception_score(logits, splits)
    assert found.mean == pytest.approx(expected['inception_score_mean'], rel=1e-12)
    assert found.std == pytest.approx(expected['inception_score_std'], rel=1e-9, abs=1e-12)


def test_more_rows_than_are_held_at_a_time(monkeypatch):
    expected = inception_score(logits_of(), 3)
    monkeypatch.setattr('vq.metrics.features.inception_score.ROWS', 7)
    assert inception_score(logits_of(), 3) == pytest.approx(expected, rel=1e-12)


def test_the_order_is_that_of_the_keys():
    logits, keys = logits_of(), torch.randperm(203, generator=torch.Generator().manual_seed(1)) - 100
    sorted_rows = logits[torch.from_numpy(np.argsort(keys.numpy()))]
    expected = inception_score(sorted_rows)
    assert inception_score(logits, keys=keys) == expected
    mixed = torch.randperm(203, generator=torch.Generator().manual_seed(2))
    assert inception_score(logits[mixed], keys=keys[mixed]) == expected
    assert inception_score(logits).mean != pytest.approx(expected.mean, rel=1e-6)


def test_extremes():
    certain = torch.eye(8)[torch.arange(64) % 8] * 1e4  # confident, and all classes equally often
    assert inception_score(certain, 2).mean == pytest.approx(8, rel=1e-12)
    assert inception_score(torch.full((20, 8), 3.0), 1).mean == pytest.approx(1, rel=1e-12)  # uniform
    assert inception_score(certain[::8], 1).mean == pytest.approx(1, rel=1e-12)  # always the same class
    half = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])
    expected = math.exp(0.75 * math.log(0.75) + 0.25 * math.log(0.25) - math.log(0.5))
    assert inception_score(half, 1).mean == pytest.approx(expected, rel=1e-6)
    impossible = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])
    with pytest.raises(UserError, match='2 of 2 rows of logits'):
        inception_score(impossible, 1)


def test_too_few_images():
    with pytest.raises(UserError, match='there are 9'):
        inception_score(logits_of(9))
