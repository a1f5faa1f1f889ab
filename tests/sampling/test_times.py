"""Laws of time: their distributions, their weights, one number in each part of the batch, and the memory of losses."""

from __future__ import annotations

import math
from collections import deque

import pytest
import torch

from tests.sampling import time_calls as calls
from vq.core.errors import ConfigError
from vq.interfaces import Path
from vq.registries import VQTimeLawRegistry
from vq.sampling.paths.betas import BetaPath
from vq.sampling.paths.cosine import CosinePath
from vq.sampling.paths.flow import FlowPath
from vq.sampling.times import LogitNormalTimes, LossSecondMomentTimes, UniformTimes, stratified

EVEN = (torch.arange(20_000) + 0.5) / 20_000
EXTREME = torch.tensor([0.0, 1 - 2**-24])


def test_uniform_times(path: Path) -> None:
    t, weights = UniformTimes()(EVEN, path)
    assert torch.equal(weights, torch.ones_like(EVEN))
    if path.steps is None:
        assert torch.equal(t, path.shifted(EVEN))
    else:
        index, counts = (t * path.steps).round().unique(return_counts=True)
        assert index.tolist() == list(range(1, path.steps + 1))
        assert counts.max() - counts.min() <= 1
        assert torch.equal(UniformTimes()(EXTREME, path)[0], torch.tensor([1 / path.steps, 1.0]))


@pytest.mark.parametrize(('mean', 'std'), [(0.0, 1.0), (-0.5, 0.7)])
def test_logit_normal_times(mean: float, std: float) -> None:
    t, weights = LogitNormalTimes(mean, std)(EVEN, CosinePath())
    logit = (t.double() / (1 - t.double())).log()
    assert float(logit.mean()) == pytest.approx(mean, abs=1e-3) and float(logit.std()) == pytest.approx(std, rel=1e-3)
    quantile = torch.tensor([0.15865525, 0.5, 0.84134475])  # a deviation around the mean
    assert logit.quantile(quantile.double()).tolist() == pytest.approx([mean - std, mean, mean + std], abs=1e-3)
    assert torch.equal(weights, torch.ones_like(t))


def test_logit_normal_times_on_all_paths(path: Path) -> None:
    law = LogitNormalTimes()
    assert (law(EXTREME, path)[0] >= 0).all() and (law(EXTREME, path)[0] <= 1).all() and law(EXTREME, path)[0].isfinite().all()
    t, _ = law(EVEN, path)
    if isinstance(path, FlowPath):  # RAE draws times by the law of the straight path, and shifts them
        torch.testing.assert_close(t, path.shifted(law(EVEN, FlowPath())[0]))
    if path.steps is not None:
        assert ((t * path.steps).round() / path.steps).sub(t).abs().max() < 1e-6
        assert float(t.mean()) == pytest.approx(0.5 + 0.5 / path.steps, abs=1e-3)


@pytest.mark.parametrize('count', [1, 3, 64, 1000])
def test_stratified_numbers_fall_into_equal_parts(count: int) -> None:
    positions = torch.randperm(count)
    for uniforms in (torch.rand(count), torch.zeros(count), torch.full((count,), 1 - 2**-24)):
        found = stratified(uniforms, positions, count)
        assert found.dtype == torch.float32 and (found < 1).all()
        lowest = 1e-4 if not uniforms.any() else 0.0  # the fp32 number nearest to position / count can be below it
        assert torch.equal((found.double() * count + lowest).floor().long(), positions)
    # the parts of two ranks are those of the batch
    uniforms = torch.rand(count)
    halves = [stratified(uniforms[rank::2], positions[rank::2], count) for rank in range(2)]
    assert torch.equal(torch.cat(halves).sort().values, stratified(uniforms, positions, count).sort().values)


def test_stratified_times_cover_a_grid_once() -> None:
    t, _ = UniformTimes()(stratified(torch.rand(50), torch.arange(50), 50), BetaPath('sqrt', 50))
    assert (t * 50).round().tolist() == list(range(1, 51))


def test_uniform_until_each_time_has_its_losses() -> None:
    path, law = BetaPath('scaled_linear', 4), LossSecondMomentTimes(4, history=2, uniform_share=0.0)
    grid = torch.tensor([1, 2, 3, 4]) / 4
    law.observe(grid.repeat(2)[:-1], torch.arange(7.0) + 1)
    t, weights = law(EVEN, path)
    assert torch.equal(weights, torch.ones_like(EVEN)) and t.unique(return_counts=True)[1].tolist() == [5000] * 4
    law.observe(grid[3:], torch.tensor([8.0]))
    wanted = torch.tensor([(a * a + b * b) ** 0.5 for a, b in ((1, 5), (2, 6), (3, 7), (4, 8))])
    wanted /= wanted.sum()
    torch.testing.assert_close(law.probabilities(), wanted)
    t, weights = law(EVEN, path)
    counts = (t * 4).round().long().bincount(minlength=5)[1:]
    torch.testing.assert_close(counts / len(EVEN), wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(weights, (1 / (4 * wanted))[(t * 4).round().long() - 1])
    assert float(weights.mean()) == pytest.approx(1, abs=1e-3)
    assert law(EXTREME, path)[0].tolist() == [0.25, 1.0]


def test_the_memory_is_the_last_losses_in_order() -> None:
    """Against queues, with more losses of one time in a batch than the memory holds."""
    law, queues = LossSecondMomentTimes(3, history=4, uniform_share=0.1), [deque(maxlen=4) for _ in range(3)]
    for step in range(12):
        index, losses = torch.randint(0, 3 if step else 1, (7,)), torch.rand(7)
        law.observe(((index + 1) / 3).bfloat16() if step == 3 else (index + 1) / 3, losses, torch.tensor(step != 5))
        if step != 5:
            for k, loss in zip(index.tolist(), losses.tolist(), strict=True):
                queues[k].append(loss)
        assert [sorted(row) for row in law.losses.tolist()] == [
            pytest.approx(sorted([*queue, *[0.0] * (4 - len(queue))])) for queue in queues
        ]
    sizes = torch.tensor([math.sqrt(sum(loss**2 for loss in queue) / 4) for queue in queues])
    torch.testing.assert_close(law.probabilities(), 0.9 * sizes / sizes.sum() + 0.1 / 3)


def test_no_loss_at_all_is_uniform() -> None:
    law = LossSecondMomentTimes(5, history=1)
    law.observe(torch.arange(1, 6) / 5, torch.zeros(5))
    assert torch.equal(law.probabilities(), torch.full((5,), 0.2))


def test_the_memory_is_in_checkpoints() -> None:
    law, other = LossSecondMomentTimes(5), LossSecondMomentTimes(5)
    law.observe(torch.arange(1, 6).repeat(10) / 5, torch.rand(50))
    other.load_state_dict(law.state_dict())
    assert torch.equal(other.probabilities(), law.probabilities()) and law.probabilities().std() > 0
    with torch.device('meta'):
        assert VQTimeLawRegistry.build(dict(type='LossSecondMomentTimes', steps=7)).losses.is_meta


@pytest.mark.slow
def test_two_ranks_remember_what_one_does(gloo_pool) -> None:
    first, second = gloo_pool.run(calls.followed, 5, 12)
    alone = calls.followed(5, 12)
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.equal(first[name], value), name


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(type='LogitNormalTimes', std=0), 'std is 0'),
        (dict(type='LossSecondMomentTimes', history=0), 'history 0'),
        (dict(type='LossSecondMomentTimes', uniform_share=2), 'a share from 0 to 1'),
    ],
)
def test_laws_that_do_not_exist(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VQTimeLawRegistry.build(settings)


def test_a_law_of_another_grid() -> None:
    with pytest.raises(ConfigError, match='has 1000 steps, and the path no grid of times'):
        LossSecondMomentTimes()(EXTREME, FlowPath())
    with pytest.raises(ConfigError, match='has 7 steps, and the path 3'):
        LossSecondMomentTimes(7)(EXTREME, BetaPath('scaled_linear', 3))
