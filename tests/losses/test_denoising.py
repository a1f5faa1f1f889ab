"""Losses of denoisers: the same error in every space, the published weights, and no half precision."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
import torch

from tests.sampling.conftest import PATHS
from vq.core.errors import ConfigError
from vq.core.records import Prediction, PredictionKind
from vq.losses.denoising import elbo_weights, min_snr_weight, squared_error
from vq.sampling.paths.betas import BetaPath
from vq.sampling.paths.flow import FlowPath
from vq.sampling.predictions import converted, determinant, noised, target_of

KINDS: tuple[PredictionKind, ...] = get_args(PredictionKind)


def drawn(rows: int = 5):
    generator = torch.Generator().manual_seed(2)
    x0, eps, value = torch.randn(3, rows, 3, 5, 1, generator=generator)
    return x0, eps, value, torch.linspace(0.1, 0.9, rows)


@pytest.mark.parametrize('name', PATHS)
def test_the_error_in_a_space_is_that_of_the_converted_estimate(name: str) -> None:
    x0, eps, value, t = drawn()
    level = PATHS[name]().level(t.double())
    z = noised(x0.double(), eps.double(), level)
    for kind, space in itertools.product(KINDS, KINDS):
        prediction = Prediction(value.double(), kind)
        target = target_of(space, x0.double(), eps.double(), level)
        wanted = (converted(prediction, z, level, space) - target).square().mean((1, 2, 3))
        found = squared_error(prediction, x0, eps, level, space)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-6)
    own = [squared_error(Prediction(value, 'v'), x0, eps, level, space) for space in (None, 'v')]
    assert torch.equal(*own)


def test_published_weights_of_min_snr() -> None:
    """Hang et al. (2023), section 3.4, in their three spaces."""
    level = BetaPath().level(torch.tensor([1, 100, 400, 1000]) / 1000)
    snr = (level.alpha / level.sigma) ** 2
    assert snr[0] > 5 > snr[-1]
    capped = snr.clamp(max=5.0)
    torch.testing.assert_close(min_snr_weight(level, 'epsilon'), capped / snr)
    torch.testing.assert_close(min_snr_weight(level, 'x0'), capped)
    torch.testing.assert_close(min_snr_weight(level, 'v'), capped / (snr + 1))


@pytest.mark.parametrize('name', PATHS)
def test_min_snr_is_one_loss_in_all_spaces(name: str) -> None:
    x0, eps, value, t = drawn()
    level, losses = PATHS[name]().level(t), []
    for space in KINDS:
        losses.append(min_snr_weight(level, space, 2.0) * squared_error(Prediction(value, 'v'), x0, eps, level, space))
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('name', PATHS)
def test_min_snr_is_finite_at_both_ends(name: str) -> None:
    for t in (0.0, 1.0):
        for level in (PATHS[name]().level(torch.tensor([t])), PATHS[name]().level_at(t)):
            assert all(min_snr_weight(level, space).isfinite().all() for space in KINDS)
    ends = FlowPath().level(torch.tensor([0.0, 1.0]))
    assert min_snr_weight(ends, 'epsilon').tolist() == [0, 1] and min_snr_weight(ends, 'x0').tolist() == [5, 0]
    assert min_snr_weight(ends, 'velocity').tolist() == [0, 0]
    with pytest.raises(ConfigError, match='gamma is 0'):
        min_snr_weight(ends, 'v', 0)


def test_gradients_are_those_of_the_closed_form() -> None:
    x0, eps, value, t = drawn()
    level = BetaPath().level(t)
    value.requires_grad_()
    squared_error(Prediction(value, 'x0'), x0, eps, level, 'epsilon').sum().backward()
    scale = (level.alpha / level.sigma).square().view(-1, 1, 1, 1) * 2 / x0[0].numel()
    torch.testing.assert_close(value.grad, (scale * (value - x0)).detach())


def test_half_precision_outside_fp32_inside() -> None:
    x0, eps, value, t = drawn()
    level, low = FlowPath().level(t), value.bfloat16()
    plain = squared_error(Prediction(low.float(), 'velocity'), x0, eps, level, 'x0')
    with torch.autocast('cpu', torch.bfloat16):
        found = squared_error(Prediction(low, 'velocity'), x0, eps, level, 'x0')
    assert found.dtype == torch.float32 and torch.equal(found, plain)
    assert float(determinant('velocity', level)[0]) == pytest.approx(1)


def test_weights_of_the_bound_need_a_grid_and_a_known_rule() -> None:
    t = torch.tensor([0.001, 0.002, 0.5])
    first, second, _ = elbo_weights(BetaPath(), t, 'epsilon').tolist()
    assert first == second
    with pytest.raises(ConfigError, match='without a grid of times'):
        elbo_weights(FlowPath(), t, 'epsilon')
    with pytest.raises(ConfigError, match="by the rule 'mean'"):
        elbo_weights(BetaPath(), t, 'epsilon', 'mean')  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="of the kind 'score'"):
        elbo_weights(BetaPath(), t, 'score', 'published')
