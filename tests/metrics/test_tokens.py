"""Figures of predicted tokens, against a plain computation in float64."""

from __future__ import annotations

import math

import pytest
import torch

from vq.core.errors import ConfigError
from vq.core.records import Batch, Outputs, Predicted
from vq.metrics.tokens import TokenMetric


def parts(count: int, masked: bool):
    stream = torch.Generator().manual_seed(3)
    logits = torch.randn(count, 6, 11, generator=stream) * 2
    targets = torch.randint(0, 11, (count, 6), generator=stream)
    mask = torch.rand(count, 6, generator=stream) < 0.6 if masked else None
    return torch.arange(count) * 7 % 101, logits, targets, mask


def run(metric: TokenMetric, rows, cuts) -> dict[str, float]:
    keys, logits, targets, mask = rows
    start = 0
    for size in cuts:
        part = slice(start, start + size)
        batch = Batch(torch.zeros(size, 3, 0, 0, dtype=torch.uint8), [], keys[part])
        metric.update(batch, Outputs(predicted=Predicted(logits[part], targets[part], None if mask is None else mask[part])))
        start += size
    return metric.compute()


@pytest.mark.parametrize('masked', [False, True])
def test_figures_are_those_of_a_plain_computation(masked):
    rows = parts(13, masked)
    _, logits, targets, mask = rows
    metric = TokenMetric()
    found = run(metric, rows, [5, 5, 3])
    log = logits.double().log_softmax(-1)
    own = log.gather(2, targets[..., None])[..., 0]
    counts = torch.ones(13, 6, dtype=torch.bool) if mask is None else mask
    place = (log > own[..., None]).sum(-1)
    assert found['token_loss'] == pytest.approx(-own[counts].mean().item(), rel=1e-6)
    assert found['token_perplexity'] == pytest.approx(math.exp(-own[counts].mean().item()), rel=1e-6)
    assert found['token_top1'] == pytest.approx((place[counts] < 1).double().mean().item())
    assert found['token_top5'] == pytest.approx((place[counts] < 5).double().mean().item())
    assert ('token_bits' in found) == (not masked)
    if not masked:
        assert found['token_bits'] == pytest.approx(-own.sum(1).mean().item() / math.log(2), rel=1e-6)
    expected = [(-own[:, at][counts[:, at]]).mean().item() for at in range(6)]
    assert metric.describe()['position_loss'] == pytest.approx(expected, abs=1e-5)


def test_neither_batches_nor_repeated_samples_matter():
    rows = parts(12, False)
    whole = run(TokenMetric(), rows, [12])
    assert run(TokenMetric(), rows, [1, 4, 7]) == whole
    twice = tuple(torch.cat([value, value[:5]]) for value in rows[:3])
    assert run(TokenMetric(), (*twice, None), [12, 5]) == whole


def test_it_says_what_it_needs():
    with pytest.raises(ConfigError, match='needs a model that predicts tokens'):
        TokenMetric().update(Batch(torch.zeros(1, 3, 0, 0, dtype=torch.uint8), [], torch.zeros(1)), Outputs())
