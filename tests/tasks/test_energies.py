"""What energies say, where they are known in closed form: bowls  E(z, t) = t |z|^2 / 2."""

from __future__ import annotations

import functools
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tasks.test_diffusion import Mixer, batch, task
from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.errors import UserError
from vq.core.records import Prediction, to_float
from vq.denoisers.dit import DiT
from vq.denoisers.energy import Energy
from vq.interfaces import Conditioned, Denoiser
from vq.sampling.diffusion.ddim import ddim
from vq.sampling.paths import BetaPath
from vq.tasks.diffusion.drawing import noise_of
from vq.tasks.diffusion.energies import (
    DRAWS,
    LIKELY,
    SEED,
    draw_composed,
    energies_of_images,
    energies_on_the_way,
    mean_energies,
    share_that_fell,
)
from vq.tasks.diffusion.energy_cost import cost_of_energy
from vq.tasks.diffusion.task import DiffusionTask


class Half(Denoiser):
    """t z / 2 + c: the sum of z times that is the bowl, and the sum of c z."""

    kind = 'epsilon'
    dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, z: Tensor, t: Tensor, condition: Conditioned | None = None) -> Prediction:
        return Prediction(self.factor * t.view(-1, 1, 1, 1) * z, self.kind)


def bowls(**settings: Any) -> DiffusionTask:
    denoiser = Energy(Half(), 3, (8, 8), 'dot')
    how = dict(denoiser=denoiser, path=BetaPath(steps=50), sampler=functools.partial(ddim, steps=4))
    return task(**{**how, **settings})


def test_mean_energies_are_means_over_times() -> None:
    z = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = mean_energies(bowls(), z, Condition(torch.arange(3)), [0.2, 0.6])
    torch.testing.assert_close(found, 0.4 * z.double().square().flatten(1).sum(1) / 2)
    with pytest.raises(UserError, match='has no energy'):
        mean_energies(task(), z, None)


def test_states_on_the_way_are_those_of_the_sampler() -> None:
    """The estimate is t z, so that each step of DDIM multiplies z by a number that is known."""
    model, wanted = bowls(), Wanted([4, 5], 7, Condition(torch.tensor([0, 1])))
    found = energies_on_the_way(model, wanted, [0.5])
    z = noise_of(7, [4, 5], 'latent', (3, 8, 8), torch.device('cpu'))
    expected, times = [z], model.path.times(4)
    for here, there in pairwise(times):
        old, new = model.path.level_at(here), model.path.level_at(there)
        z = (new.alpha * (1 - old.sigma * here) / old.alpha + new.sigma * here) * z
        expected.append(z)
    energies = torch.stack([0.25 * state.double().square().flatten(1).sum(1) for state in expected])
    torch.testing.assert_close(found, energies, rtol=1e-4, atol=0)


def test_the_share_that_fell_compares_the_ends() -> None:
    energies = torch.tensor([[3.0, 3.0, 3.0, 3.0], [9.0, 0.0, 0.0, 5.0], [2.0, 3.0, 4.0, 1.0]])
    assert share_that_fell(energies) == 0.5


def test_images_are_noised_alike_and_judged_at_the_given_times() -> None:
    model, images = bowls(), batch(4).image
    assert images is not None
    expected = torch.zeros(4, dtype=torch.float64)
    for draw in range(DRAWS):
        noise = noise_of(SEED, [draw], 'energy', (3, 8, 8), torch.device('cpu'))
        for t in LIKELY:
            level = model.path.level_at(t)
            z = (level.alpha * to_float(images) + level.sigma * noise).double()
            expected += t * z.square().flatten(1).sum(1) / 2 / DRAWS / len(LIKELY)
    torch.testing.assert_close(energies_of_images(model, images), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(energies_of_images(model, images[1:2]), expected[1:2], rtol=1e-5, atol=0)


def test_composed_images_of_one_class_are_those_of_guidance() -> None:
    torch.manual_seed(0)
    denoiser = Energy(Mixer(3, (8, 8)), 3, (8, 8))
    model = task(denoiser=denoiser, path=BetaPath(steps=50), sampler=functools.partial(ddim, steps=3))
    condition = Condition(torch.tensor([1, 2]))
    guided = model.drawing({'guidance': 3.0}).draw(Wanted([0, 1], 5, condition)).images()
    torch.testing.assert_close(draw_composed(model, Wanted([0, 1], 5), [condition], 3.0), guided)
    two = draw_composed(model, Wanted([0, 1], 5), [condition, Condition(torch.tensor([3, 0]))])
    assert two.shape == (2, 3, 8, 8) and not torch.equal(two, guided)


@pytest.mark.parametrize('reduction', ['mean_then_head', 'dot'])
def test_an_energy_costs_twice_the_products_and_leaves_the_network_as_it_was(reduction: Any) -> None:
    """6 products in place of 3, but for the time and the condition, which are no functions of z."""
    torch.manual_seed(0)
    model = Energy(DiT(3, (8, 8), dim=32, depth=4, heads=2), 3, (8, 8), reduction).eval()
    step, estimate = cost_of_energy(model, (3, 8, 8))
    assert 1.8 < step < 2.2 and 1.7 < estimate < 2.2
    assert not model.training and all(weight.grad is None for weight in model.parameters())
