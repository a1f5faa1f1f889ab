"""Kinds of predictions against closed forms and derivatives, for every pair of kinds."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
import torch
from torch import Tensor

from vq.core.records import Prediction, PredictionKind
from vq.interfaces import Path
from vq.sampling.paths.cosine import CosinePath
from vq.sampling.predictions import converted, determinant, noised, target_of

KINDS: tuple[PredictionKind, ...] = get_args(PredictionKind)
PAIRS = list(itertools.product(KINDS, KINDS))


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x0, eps = torch.randn(2, 7, 3, 5, 2, generator=generator, dtype=torch.float64)
    return x0, eps, torch.linspace(0.05, 0.95, 7, dtype=torch.float64)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
def test_the_truth_of_one_kind_becomes_that_of_another(path: Path, dtype: torch.dtype, tolerance: float) -> None:
    x0, eps, t = (value.to(dtype) for value in drawn())
    level = path.level(t)
    z = noised(x0, eps, level)
    for given, wanted in PAIRS:
        truth = target_of(wanted, x0, eps, level)
        found = converted(Prediction(target_of(given, x0, eps, level), given), z, level, wanted)
        scale = float(truth.abs().max())
        torch.testing.assert_close(found, truth, rtol=tolerance, atol=tolerance * scale, msg=f'{given} to {wanted}')


def test_any_estimate_comes_back_through_all_kinds(path: Path) -> None:
    """A network is never right: the conversion holds for all numbers, not for the truth alone."""
    z, value, t = drawn()
    level, found = path.level(t), Prediction(value, 'v')
    for kind in (*KINDS, 'v'):
        found = Prediction(converted(found, z, level, kind), kind)
    torch.testing.assert_close(found.value, value, rtol=1e-10, atol=1e-10)


def test_errors_are_in_the_ratio_of_determinants(path: Path) -> None:
    x0, eps, t = drawn()
    level = path.level(t)
    z = noised(x0, eps, level)
    for given, wanted in PAIRS:
        wrong = target_of(given, x0, eps, level) + 0.25
        found = converted(Prediction(wrong, given), z, level, wanted) - target_of(wanted, x0, eps, level)
        ratio = (determinant(wanted, level) / determinant(given, level)).view(-1, 1, 1, 1)
        torch.testing.assert_close(found, (0.25 * ratio).expand_as(found), rtol=1e-8, atol=1e-10)


def test_targets_are_what_they_are_called(path: Path) -> None:
    x0, eps, t = drawn()
    t = t + 1e-5  # between times of the grids
    level = path.level(t)
    assert torch.equal(target_of('x0', x0, eps, level), x0) and torch.equal(target_of('epsilon', x0, eps, level), eps)
    step = 1e-7
    rate = (noised(x0, eps, path.level(t + step)) - noised(x0, eps, path.level(t - step))) / (2 * step)
    torch.testing.assert_close(target_of('velocity', x0, eps, level), rate, rtol=1e-4, atol=1e-4)
    # given x0, z_t is normal around alpha x0: the score is the gradient of its log density
    z = noised(x0, eps, level).requires_grad_()
    shape = (-1, 1, 1, 1)
    alpha, sigma = level.alpha.view(shape), level.sigma.view(shape)
    density = -((z - alpha * x0) ** 2) / (2 * sigma**2)
    (score,) = torch.autograd.grad(density.sum(), z)
    torch.testing.assert_close(target_of('score', x0, eps, level), score, rtol=1e-9, atol=1e-9)


def test_bfloat16_estimates_are_converted_in_fp32(path: Path) -> None:
    x0, eps, t = drawn()
    level = path.level(t.float())
    z, value = noised(x0, eps, level).bfloat16(), x0.bfloat16()
    for kind in KINDS:
        found = converted(Prediction(value, 'x0'), z, level, kind)
        wide = converted(Prediction(value.float(), 'x0'), z.float(), level, kind)
        assert found.dtype == torch.float32 and torch.equal(found, wide)


def test_both_ends_of_the_path(path: Path) -> None:
    """Kinds that determine data and noise: x0 does not tell noise at time 0, nor epsilon data at alpha = 0."""
    x0, eps, _ = drawn()
    for t, kinds in ((0.0, ('epsilon', 'v', 'velocity')), (1.0, ('x0', 'v', 'velocity'))):
        for level in (path.level_at(t), path.level(torch.full((7,), t, dtype=torch.float64))):
            z = noised(x0, eps, level)
            for given, wanted in itertools.product(kinds, kinds):
                found = converted(Prediction(target_of(given, x0, eps, level), given), z, level, wanted)
                truth = target_of(wanted, x0, eps, level)
                torch.testing.assert_close(found, truth, rtol=1e-8, atol=1e-8 * float(truth.abs().max()))


def test_v_is_a_rotation_on_the_circle() -> None:
    """With alpha^2 + sigma^2 = 1,  x0 = alpha z - sigma v  and  eps = sigma z + alpha v."""
    x0, eps, t = drawn()
    level = CosinePath().level(t)
    z, v = noised(x0, eps, level), target_of('v', x0, eps, level)
    alpha, sigma = (value.view(-1, 1, 1, 1) for value in level[:2])
    torch.testing.assert_close(alpha * z - sigma * v, x0)
    torch.testing.assert_close(sigma * z + alpha * v, eps)
