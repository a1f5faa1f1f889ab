"""One reverse step: Bayes' rule in closed form, composition of two steps, the bounds of the variance."""

from __future__ import annotations

import math

import pytest
import torch

from vq.core.records import Prediction
from vq.interfaces import Path
from vq.sampling.posterior import floor_of, posterior, reverse, transition
from vq.sampling.predictions import noised

T, S = 0.74, 0.21


def drawn(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randn(2, count, 5, 3, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64))


def test_posterior_is_bayes_rule(path: Path) -> None:
    """Precisions of the two normal factors q(z_t | z_s) and q(z_s | x0) add up, and their means are weighted by them."""
    z, x0 = drawn()
    t, s = path.level_at(T), path.level_at(S)
    ratio, step = transition(t, s)
    precision = 1 / s.sigma**2 + ratio**2 / step
    found = posterior(z, x0, t, s)
    assert found.variance == pytest.approx(1 / precision) and found.log_variance == pytest.approx(-math.log(precision))
    torch.testing.assert_close(found.mean, (s.alpha * x0 / s.sigma**2 + ratio * z / step) / precision)


def test_two_steps_of_the_forward_process_are_one(path: Path) -> None:
    t, s, zero = path.level_at(T), path.level_at(S), path.level_at(0.0)
    ratio, step = transition(t, s)
    assert ratio * s.alpha == pytest.approx(t.alpha) and step + (ratio * s.sigma) ** 2 == pytest.approx(t.sigma**2)
    assert transition(t, zero) == pytest.approx((t.alpha, t.sigma**2))


def test_rows_of_different_times_are_those_of_single_times(path: Path) -> None:
    z, x0 = drawn(4)
    upper = torch.tensor([1.0, T, S, 0.5], dtype=torch.float64)
    lower = torch.tensor([T, S, 0.0, 0.5 - 1e-3], dtype=torch.float64)
    rows = posterior(z.float(), x0.float(), path.level(upper), path.level(lower), 1e-9)
    for row, (t, s) in enumerate(zip(upper.tolist(), lower.tolist(), strict=True)):
        one = posterior(z[row : row + 1], x0[row : row + 1], path.level_at(t), path.level_at(s), 1e-9)
        torch.testing.assert_close(rows.mean[row : row + 1].double(), one.mean, rtol=1e-5, atol=1e-5)
        assert float(rows.variance[row]) == pytest.approx(one.variance, rel=1e-5)
        assert float(rows.log_variance[row]) == pytest.approx(one.log_variance, rel=1e-5)
    assert rows.mean.dtype == torch.float32 and rows.variance.shape == (4, 1, 1, 1)


def test_the_step_to_data_is_the_estimate(path: Path) -> None:
    z, x0 = drawn()
    t, data = path.level_at(S), path.level_at(0.0)
    found = posterior(z, x0, t, data, floor=1e-3)
    torch.testing.assert_close(found.mean, x0)
    assert found.variance == 0 and found.log_variance == pytest.approx(math.log(1e-3))


def test_the_truth_gives_the_posterior_whatever_the_variance(path: Path) -> None:
    x0, eps = drawn()
    t, s = path.level_at(T), path.level_at(S)
    z, (_, step) = noised(x0, eps, t), transition(t, s)
    wanted = posterior(z, x0, t, s)
    for prediction in (Prediction(eps, 'epsilon'), Prediction(x0, 'x0', torch.full_like(z, -1)), Prediction(x0, 'x0')):
        found = reverse(prediction, z, t, s)
        torch.testing.assert_close(found.mean, wanted.mean)
        torch.testing.assert_close(torch.as_tensor(found.variance).double().expand_as(z), torch.full_like(z, wanted.variance))
    for prediction in (Prediction(x0, 'x0'), Prediction(x0, 'x0', torch.ones_like(z))):
        found = reverse(prediction, z, t, s, fixed='large')
        torch.testing.assert_close(torch.as_tensor(found.variance).double().expand_as(z), torch.full_like(z, step))
    middle = reverse(Prediction(x0, 'x0', torch.zeros_like(z)), z, t, s)
    torch.testing.assert_close(middle.variance, torch.full_like(z, (wanted.variance * step) ** 0.5))


def test_floor_of_a_chain(path: Path) -> None:
    times = path.times(3)
    t, s = path.level_at(times[-3]), path.level_at(times[-2])
    assert floor_of(path, times) == pytest.approx(posterior(torch.ones(1, 1), torch.ones(1, 1), t, s).variance)
    assert floor_of(path, [1.0, 0.0]) == pytest.approx(path.level_at(1.0).sigma ** 2)


def test_bfloat16_is_calculated_in_fp32(path: Path) -> None:
    z, x0 = (value.bfloat16() for value in drawn())
    t, s = path.level_at(T), path.level_at(S)
    found = reverse(Prediction(x0, 'x0', torch.zeros_like(z)), z, t, s)
    assert found.mean.dtype == found.log_variance.dtype == torch.float32
    torch.testing.assert_close(found.mean, posterior(z.double(), x0.double(), t, s).mean.float(), rtol=1e-5, atol=1e-5)
