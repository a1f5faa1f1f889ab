"""Losses on energies: which way they push, and what they use."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Prediction
from vq.interfaces.losses import Landscape
from vq.losses.energy import ContrastiveEnergyLoss, RefinementLoss, refinement
from vq.sampling.descent import counts_at, descend
from vq.sampling.paths import BetaPath
from vq.sampling.predictions import data_and_noise, noised

PATH = BetaPath('linear', steps=100)
T = torch.tensor([0.1, 0.6, 0.9])


class Valley:
    """E = curve |z - centre|^2 / 2, and what was asked of it."""

    def __init__(self, curve: float = 2.0) -> None:
        self.curve, self.asked = torch.tensor(curve, requires_grad=True), list[Tensor]()

    def __call__(self, z: Tensor) -> Prediction:
        self.asked.append(z)
        return Prediction(self.curve * z, 'epsilon', energy=self.curve * z.square().flatten(1).sum(1) / 2)


def landscape(valley: Valley, size: Tensor | float = 0.05, **changes: Any) -> Landscape:
    stream = torch.Generator().manual_seed(0)
    x0, eps, noise = (torch.randn(3, 2, 2, 2, generator=stream) for _ in range(3))
    level = PATH.level(T)
    z = noised(x0, eps, level)
    found = Landscape(valley, valley(z), z, x0, eps, T, level, PATH.steps, torch.as_tensor(size), lambda purpose: noise)
    valley.asked.clear()
    return dataclasses.replace(found, **changes)


# refinement


def test_refinement_rewards_descent() -> None:
    """Deeper is better; of two descents to the same depth the even one is. Rows without a step do not count theirs."""
    every = torch.ones(2, 1, dtype=torch.bool)
    none, some, more = (torch.tensor([[d], [d]]) for d in (0.0, 1.0, 2.0))
    up, odd = torch.tensor([[-1.0], [-1.0]]), torch.tensor([[2.0], [0.0]])
    values = [float(refinement(drops, every)) for drops in (more, some, odd, none, up)]
    assert values == sorted(values) and len(set(values)) == 5
    assert float(refinement(odd, every, penalty=0.0)) == pytest.approx(values[1])
    half = torch.tensor([[True], [False]])
    assert float(refinement(torch.tensor([[1.0], [0.0]]), half)) == pytest.approx(values[1])
    pair = refinement(torch.tensor([[1.0, 2.0]]), torch.ones(1, 2, dtype=torch.bool))
    assert float(pair) == pytest.approx((values[1] + values[0]) / 2), 'a mean over samples'


@pytest.mark.parametrize(('size', 'grows'), [(0.05, True), (0.9, False)])
def test_refinement_trains_the_step_size_towards_the_deepest_descent(size: float, grows: bool) -> None:
    """The energy of one step falls by 1 - (1 - 2 a)^2: deepest at a = 1/2. Below, the loss lengthens steps; above, it
    shortens them, also where each of them raises the energy."""
    step = torch.tensor(size, requires_grad=True)
    value = RefinementLoss(penalty=0.0, limit=None, most=1, recompute=False)(landscape(Valley(), step))
    (gradient,) = torch.autograd.grad(value, step)
    assert (float(gradient) < 0) == grows
    long = torch.tensor(1.2, requires_grad=True)
    value = RefinementLoss(limit=None, most=1, recompute=False)(landscape(Valley(), long))
    assert float(torch.autograd.grad(value, long)[0]) > 0


def test_refinement_is_that_of_the_inner_loop() -> None:
    """With the steps of the times and the limits of the levels of the rows, whether steps run again in backward or not."""
    results = []
    for recompute in (False, True):
        valley, step = Valley(), torch.tensor(0.05, requires_grad=True)
        given = landscape(valley, step)
        value = RefinementLoss(recompute=recompute)(given)
        results.append((value.detach(), *torch.autograd.grad(value, (step, valley.curve))))
        assert given.notes['accept_rate'] == 1 and given.notes['energy_gap'] > 0
    for plain, again in zip(*results, strict=True):
        torch.testing.assert_close(plain, again)
    valley = Valley()
    loop = descend(valley, given.z, 6, 0.05, accept='always', limit=2 * given.level.alpha, counts=counts_at(T, 100))
    torch.testing.assert_close(results[0][0], refinement(loop.drops, loop.tried).detach())
    assert loop.tried.sum(0).tolist() == counts_at(T, 100).tolist() == [2, 4, 5]


# contrast


def test_contrastive_negatives_use_the_configured_step() -> None:
    """By hand: a wrong sample, the inner loop with the denoiser's step size, its estimate of the data, the noise of z."""
    for size in (0.05, 0.2):
        valley = Valley()
        given, loss = landscape(valley, size), ContrastiveEnergyLoss(most=1)
        wrong = noised(given.x0 + 3 * given.noise('negative'), given.eps, given.level)
        limit = (2 * given.level.alpha).view(-1, 1, 1, 1)
        moved = (wrong - size * 2 * wrong).clamp(-limit, limit)
        x0, _ = data_and_noise(Prediction(2 * moved, 'epsilon'), moved, given.level)
        expected = noised(x0.clamp(-2, 2), given.eps, given.level)
        torch.testing.assert_close(loss.negative(given), expected.detach())
    wide = ContrastiveEnergyLoss(most=1, limit=None).negative(given)
    assert not torch.allclose(wide, expected)


def test_contrast_is_a_cross_entropy() -> None:
    valley = Valley()
    given, loss = landscape(valley), ContrastiveEnergyLoss()
    value = loss(given)
    negative = valley.asked[-1]
    assert not negative.requires_grad
    energies = torch.stack([valley(given.z).energy, valley(negative).energy], 1)
    expected = torch.nn.functional.cross_entropy(-energies, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(value, expected)
    assert torch.autograd.grad(value, valley.curve)[0] != 0
    torch.testing.assert_close(given.notes['contrast_gap'], (energies[:, 1] - energies[:, 0]).mean().detach())


@pytest.mark.parametrize(
    ('make', 'match'),
    [
        (lambda: RefinementLoss(penalty=-1.0), 'penalty is -1'),
        (lambda: RefinementLoss(count=0), '0 steps'),
        (lambda: ContrastiveEnergyLoss(spread=0.0), 'spread is 0'),
        (lambda: ContrastiveEnergyLoss(accept='metropolis'), 'without noise'),
    ],
)
def test_settings_are_checked(make: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make()
