"""Kinds of predictions against closed forms and derivatives, for every pair of kinds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from vq.core.records import Prediction, PredictionKind
from vq.sampling.predictions import Level, converted, cosine_level, linear_level, noised, target_of

KINDS: tuple[PredictionKind, ...] = get_args(PredictionKind)
LEVELS = [linear_level, cosine_level]


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x0, eps = torch.randn(2, 7, 3, 5, 2, generator=generator, dtype=torch.float64)
    return x0, eps, torch.linspace(0.05, 0.95, 7, dtype=torch.float64)


@pytest.mark.parametrize('path', LEVELS)
@pytest.mark.parametrize(('given', 'wanted'), list(itertools.product(KINDS, KINDS)))
def test_the_truth_of_one_kind_becomes_that_of_another(
    path: Callable[[Tensor], Level], given: PredictionKind, wanted: PredictionKind
) -> None:
    x0, eps, t = drawn()
    level = path(t)
    z = noised(x0, eps, level)
    found = converted(Prediction(target_of(given, x0, eps, level), given), z, level, wanted)
    torch.testing.assert_close(found, target_of(wanted, x0, eps, level).float(), rtol=2e-4, atol=2e-4)
    assert found.dtype == torch.float32


@pytest.mark.parametrize('path', LEVELS)
def test_targets_are_what_they_are_called(path: Callable[[Tensor], Level]) -> None:
    x0, eps, t = drawn()
    level = path(t)
    assert torch.equal(target_of('x0', x0, eps, level).double(), x0) and torch.equal(target_of('epsilon', x0, eps, level), eps)
    step = 1e-6
    rate = (noised(x0, eps, path(t + step)) - noised(x0, eps, path(t - step))).double() / (2 * step)
    torch.testing.assert_close(target_of('velocity', x0, eps, level).double(), rate, rtol=2e-3, atol=2e-3)
    # given x0, z_t is normal around alpha x0: the score is the gradient of its log density
    z = noised(x0, eps, level).requires_grad_()
    shape = (-1, 1, 1, 1)
    alpha, sigma = level.alpha.view(shape), level.sigma.view(shape)
    density = -((z - alpha * x0) ** 2) / (2 * sigma**2)
    (score,) = torch.autograd.grad(density.sum(), z)
    torch.testing.assert_close(target_of('score', x0, eps, level), score, rtol=1e-5, atol=1e-5)


def test_v_is_a_rotation_on_the_circle() -> None:
    """With alpha^2 + sigma^2 = 1,  x0 = alpha z - sigma v  and  eps = sigma z + alpha v."""
    x0, eps, t = drawn()
    level = cosine_level(t)
    z, v = noised(x0, eps, level), target_of('v', x0, eps, level)
    alpha, sigma = (value.view(-1, 1, 1, 1) for value in level[:2])
    torch.testing.assert_close(alpha * z - sigma * v, x0, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sigma * z + alpha * v, eps, rtol=1e-5, atol=1e-5)
