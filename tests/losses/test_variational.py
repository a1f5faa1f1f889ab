"""The variational bound: exact on a Gaussian, probabilities that add up to 1, gradients of the variance alone."""

from __future__ import annotations

import math

import pytest
import torch

from vq.core.errors import ConfigError
from vq.core.records import Prediction
from vq.losses.variational import chain_bits, neighbours, pixel_nats, prior_bits, step_bits
from vq.sampling.paths.betas import BetaPath
from vq.sampling.paths.flow import FlowPath
from vq.sampling.posterior import Gaussian, floor_of, posterior, reverse, transition
from vq.sampling.predictions import noised


def exact_estimate(path: BetaPath):
    """Of standard normal data: x0 given z_t is N(alpha z, sigma^2), so a reverse step is normal too, with the posterior's
    variance plus that of x0. The interpolation of log variances reaches it with a v of its own."""
    times = [k / path.steps for k in range(path.steps + 1)]

    def estimate(z: torch.Tensor, t: float) -> Prediction:
        at, to = path.level_at(t), path.level_at(times[round(t * path.steps) - 1])
        _, step = transition(at, to)
        one = posterior(torch.zeros(1, 1), torch.ones(1, 1), at, to, floor_of(path, times[::-1]))
        wanted = math.log(one.variance + float(one.mean) ** 2 * at.sigma**2)
        share = (wanted - one.log_variance) / (math.log(step) - one.log_variance)
        return Prediction(at.alpha * z, 'x0', torch.full_like(z, 2 * share - 1))

    return estimate


def test_the_bound_of_the_exact_model_is_the_entropy() -> None:
    path, x0 = BetaPath('scaled_linear', 6, 0.05, 0.5), torch.randn(8000, 3, 7)
    found = chain_bits(exact_estimate(path), x0, path, lambda k: torch.randn(x0.shape), pixels=False)
    entropy = 0.5 * math.log2(2 * math.pi * math.e)
    assert found.total.shape == (8000,) and found.steps.shape == (6, 8000)
    assert float(found.total.mean()) == pytest.approx(entropy, abs=0.01)
    torch.testing.assert_close(found.total, found.prior + found.steps.sum(0))

    def worse(z: torch.Tensor, t: float) -> Prediction:
        return exact_estimate(path)(z, t)._replace(value=0.7 * path.level_at(t).alpha * z)

    assert float(chain_bits(worse, x0, path, lambda k: torch.randn(x0.shape), pixels=False).total.mean()) > entropy + 0.02


def test_prior_of_normal_data_is_closed() -> None:
    """E KL(N(a x0, s^2) | N(0, 1)) = -log s for a^2 + s^2 = 1 and x0 of variance 1."""
    last = BetaPath('scaled_linear', 6, 0.05, 0.5).level_at(1.0)
    x0 = torch.randn(20_000, 4)
    assert float(prior_bits(x0, last).mean()) == pytest.approx(-math.log2(last.sigma), rel=0.02)


def test_probabilities_of_all_values_of_a_pixel_add_up_to_one() -> None:
    values = (torch.arange(256) / 127.5 - 1).view(-1, 1)
    means = torch.tensor([[-1.2, -0.4, 0.0, 0.993]])
    for log_variance in (-9.0, -4.0, 1.0):
        total = torch.exp(-pixel_nats(values, Gaussian(means, math.exp(log_variance), log_variance))).sum(0)
        torch.testing.assert_close(total, torch.ones(4), rtol=0, atol=1e-5)
    exact = torch.distributions.Normal(0.1, 0.05)
    wanted = -(exact.cdf(values + 1 / 255) - exact.cdf(values - 1 / 255)).log()[130:150]
    found = pixel_nats(values, Gaussian(torch.tensor([[0.1]]), 0.0025, math.log(0.0025)))[130:150]
    torch.testing.assert_close(found, wanted, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize('pixels', [True, False])
@pytest.mark.parametrize('frozen', [True, False])
def test_a_frozen_mean_gets_no_gradient_of_the_bound(pixels: bool, frozen: bool) -> None:
    path, x0 = BetaPath(), torch.rand(4, 2, 3) * 2 - 1
    t, s, floor = neighbours(path, torch.tensor([1, 2, 300, 1000]) / 1000)
    eps = torch.randn_like(x0)
    z = noised(x0, eps, t)
    value, variance = (torch.zeros_like(x0).requires_grad_() for _ in range(2))
    found = step_bits(Prediction(value, 'epsilon', variance), z, x0, t, s, floor, frozen_mean=frozen, pixels=pixels)
    found.sum().backward()
    assert found.dtype == torch.float32 and (found.isfinite()).all() and (found[1:] > 0).all()
    assert variance.grad.flatten(1).abs().amax(1).min() > 0 and variance.grad.isfinite().all()
    assert (value.grad is None) == frozen
    with torch.autocast('cpu', torch.bfloat16):
        again = step_bits(Prediction(value, 'epsilon', variance), z, x0, t, s, floor, frozen_mean=frozen, pixels=pixels)
    assert torch.equal(again, found)


def test_the_truth_costs_nothing() -> None:
    path, x0 = BetaPath('cosine'), torch.randn(3, 5)
    t, s, floor = neighbours(path, torch.tensor([0.002, 0.5, 1.0]))
    z = noised(x0, torch.randn_like(x0), t)
    found = step_bits(Prediction(x0, 'x0'), z, x0, t, s, floor)
    torch.testing.assert_close(found, torch.zeros(3), rtol=0, atol=1e-6)
    assert reverse(Prediction(x0, 'x0'), z, t, s).mean.shape == x0.shape


def test_fewer_steps_make_a_looser_bound() -> None:
    path, x0 = BetaPath(), torch.randn(200, 30)
    noise = lambda k: torch.randn(x0.shape, generator=torch.Generator().manual_seed(k))  # noqa: E731

    def estimate(z: torch.Tensor, t: float) -> Prediction:
        return Prediction(path.level_at(t).alpha * z, 'x0')

    bounds = [float(chain_bits(estimate, x0, path, noise, pixels=False, steps=steps).total.mean()) for steps in (100, 10)]
    assert 0.5 * math.log2(2 * math.pi * math.e) < bounds[0] < bounds[1]


def test_a_path_without_a_grid_has_no_chain() -> None:
    with pytest.raises(ConfigError, match='FlowPath has no grid of times'):
        neighbours(FlowPath(), torch.rand(2))
