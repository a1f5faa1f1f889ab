"""Accuracy against torchmetrics, and its treatment of ties and NaN."""

from __future__ import annotations

import pytest
import torch

from tests.metrics.passes import CUTS, measure
from vq.core import collectives
from vq.core.errors import ConfigError
from vq.registries import VQMetricRegistry

WHOLE = [list(range(11))]


def answers(classes=13):
    generator = torch.Generator().manual_seed(1)
    category = torch.randint(classes, (11,), generator=generator)
    logits = torch.randn(11, classes, generator=generator)
    logits[torch.arange(11), category] += 1
    return logits, category


def accuracy(logits, category, cuts=WHOLE, **settings):
    metric = VQMetricRegistry.build(dict(type='AccuracyMetric', **settings))
    return measure(metric, cuts, category=category, logits=logits)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_against_torchmetrics(dtype):
    from torchmetrics.functional.classification import multiclass_accuracy

    logits, category = answers()
    logits = logits.to(dtype)
    found = accuracy(logits, category, top=[1, 3, 5])
    for k in (1, 3, 5):
        expected = multiclass_accuracy(logits.float(), category, 13, average='micro', top_k=k).item()
        assert found[f'top{k}'] == pytest.approx(expected, rel=1e-6)
    assert 0 < found['top1'] < found['top5'] < 1


@pytest.mark.parametrize('cuts', CUTS)
def test_the_cut_does_not_matter(cuts):
    assert accuracy(*answers(), cuts) == accuracy(*answers())


def test_ties_and_nan():
    category = torch.arange(11) % 4
    assert accuracy(torch.zeros(11, 4), category)['top1'] == pytest.approx(3 / 11)  # only class 0
    assert accuracy(torch.zeros(11, 4), category)['top5'] == 1
    logits = torch.nn.functional.one_hot(category, 4).float()
    assert accuracy(logits, category)['top1'] == 1
    logits[3, 0] = torch.nan
    assert accuracy(logits, category)['top1'] == pytest.approx(10 / 11)


def test_what_is_missing_is_named():
    logits, category = answers()
    with pytest.raises(ConfigError, match='categories'):
        accuracy(logits, None)
    metric = VQMetricRegistry.build(dict(type='AccuracyMetric'))
    with pytest.raises(ConfigError, match='logits'):
        measure(metric, WHOLE, category=category)
    with pytest.raises(ConfigError, match='from 1'):
        VQMetricRegistry.build(dict(type='AccuracyMetric', top=[0]))


def share():
    rows = list(range(9)) if collectives.rank() == 0 else list(range(7, 11))
    return accuracy(*answers(), [rows[:3], rows[3:]])


@pytest.mark.slow
def test_two_ranks(gloo_pool):
    assert gloo_pool.run(share) == [accuracy(*answers())] * 2
