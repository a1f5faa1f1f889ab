"""The task of diffusion with an energy: its losses, its figures, its drawing, its checks."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from tests.tasks.test_diffusion import Mixer, batch, task
from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.errors import ConfigError, UserError
from vq.core.records import to_float
from vq.denoisers.energy import Energy
from vq.denoisers.equilibrium import Equilibrium
from vq.interfaces import Denoiser
from vq.losses.energy import ContrastiveEnergyLoss, RefinementLoss
from vq.registries import VQTaskRegistry
from vq.sampling.diffusion.ancestral import ancestral
from vq.sampling.diffusion.gradient_descent import gradient_descent
from vq.sampling.diffusion.refined import refined
from vq.sampling.paths import BetaPath, FlowPath
from vq.sampling.times import EquilibriumTimes
from vq.tasks.diffusion.numbers import numbers_of
from vq.tasks.diffusion.task import DiffusionTask

SHAPE: tuple[int, tuple[int, int]] = (3, (8, 8))


class Noise(Mixer):
    kind = 'epsilon'


def made(
    steps: int = 2, inner: dict[str, Any] | None = None, energy: dict[str, Any] | None = None, **settings: Any
) -> DiffusionTask:
    torch.manual_seed(0)
    denoiser = Energy(Noise(*SHAPE), *SHAPE, **(energy or {}))
    sampler = functools.partial(ancestral, steps=steps)
    if inner is not None:
        sampler = functools.partial(refined, sampler=sampler, **inner)
    return task(**{**dict(denoiser=denoiser, path=BetaPath(steps=50), sampler=sampler), **settings})


def test_the_loss_is_the_squared_error_of_the_gradient() -> None:
    model, seen = made(energy=dict(multiplier=5.0)).train(), batch()
    ((_, losses),) = model.training_step(seen, model.roots(), 1)
    numbers = numbers_of(seen, 0, 1, (3, 8, 8))
    t = (torch.floor(numbers.time * 50) + 1) / 50
    level = model.path.level(t)
    z = level.alpha.view(-1, 1, 1, 1) * to_float(seen.image) + level.sigma.view(-1, 1, 1, 1) * numbers.noise
    vector = model.conditioner(Condition(seen.category, null=numbers.drop < 0.1), 3)  # type: ignore[misc]
    z.requires_grad_()
    energy = model.denoiser.energy(z, t, vector)  # type: ignore[operator]
    (gradient,) = torch.autograd.grad(energy.sum(), z)
    torch.testing.assert_close(losses.total.detach(), (5 * gradient - numbers.noise).square().mean())
    losses.total.backward()
    assert all(parameter.grad is not None for parameter in model.roots()['denoiser'].parameters())


def test_losses_on_energies_are_logged_with_rates_and_gaps() -> None:
    losses = dict(refinement=RefinementLoss(most=2), contrastive=ContrastiveEnergyLoss(most=2))
    model, seen = made(energy=dict(learn_step=True), losses=losses).train(), batch()
    values = []
    for _ in range(2):
        ((_, found),) = model.training_step(seen, model.roots(), 1)
        values.append(found)
    assert found.weights == {'denoising': 1.0, 'refinement': 0.1, 'contrastive': 0.05}
    assert set(found.notes) == {'accept_rate', 'energy_gap', 'contrast_gap'} and 0 <= found.notes['accept_rate'] <= 1
    assert values[0].total == values[1].total, 'numbers are functions of the step'
    found.total.backward()
    step = model.denoiser.alpha.grad
    assert step is not None and step != 0 and all(p.grad is not None for p in model.roots()['denoiser'].parameters())


def test_validation_measures_the_inner_loop() -> None:
    plain, looped = made(), made(inner={})
    assert not {'accept_rate', 'energy_gap'} & set(plain.validation_step(batch()).losses)
    looped.draw(Wanted([7], 5, Condition(torch.tensor([1]))))  # of another batch: not counted
    found = looped.validation_step(batch()).losses
    assert 0 <= found['accept_rate'] <= 1 and found['energy_gap'] >= 0
    assert found == looped.validation_step(batch()).losses


def test_drawing_keeps_no_graph_and_is_the_same_in_any_batch() -> None:
    model = made(inner=dict(langevin=True), guidance=2.0)
    with torch.inference_mode():
        both = model.draw(Wanted([3, 4], 1, Condition(torch.tensor([1, 2])))).images()
    one = model.draw(Wanted([4], 1, Condition(torch.tensor([2])))).images()
    assert both is not None and one is not None and not one.requires_grad
    torch.testing.assert_close(both[1:], one, rtol=1e-4, atol=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_commands_set_the_steps_of_the_sampler_inside() -> None:
    model = made(inner=dict(count=2))
    changed = model.drawing(dict(steps=1)).drawn_by.sampler
    assert changed.keywords['count'] == 2 and changed.keywords['sampler'].keywords['steps'] == 1
    other = model.drawing(dict(sampler='ddim')).drawn_by.sampler.keywords['sampler']
    assert other.func.__name__ == 'ddim' and other.keywords['steps'] == 2
    config = dict(sampler=dict(type='Refined', count=2, sampler=dict(type='Ancestral', steps=9)), guidance={}, conditioner={})
    DiffusionTask.set_drawing(config, dict(steps=4, sampler='heun'))
    assert config['sampler'] == dict(type='Refined', count=2, sampler=dict(type='Heun', steps=4))
    with pytest.raises(UserError, match="no sampler 'refined'"):
        model.drawing(dict(sampler='refined'))


def equilibrium(denoiser: Denoiser | None = None, **settings: Any) -> DiffusionTask:
    torch.manual_seed(0)
    network = Equilibrium(denoiser or Mixer(*SHAPE), *SHAPE)
    how: dict[str, Any] = dict(denoiser=network, path=FlowPath(), times=EquilibriumTimes())
    return task(**{**how, 'sampler': functools.partial(gradient_descent, steps=3), **settings})


@pytest.mark.parametrize('energy', [False, True])
def test_equilibrium_matching_trains_and_draws(energy: bool) -> None:
    model = equilibrium(Energy(Mixer(*SHAPE), *SHAPE, reduction='dot') if energy else None)
    ((_, losses),) = model.train().training_step(batch(), model.roots(), 1)
    losses.total.backward()
    assert all(parameter.grad is not None for parameter in model.roots()['denoiser'].parameters())
    drawn = model.eval().draw(Wanted([3, 4], 1, Condition(torch.tensor([1, 2])))).images()
    assert drawn is not None and torch.isfinite(drawn).all()


@pytest.mark.parametrize(
    ('settings', 'match'),
    [
        (dict(energy=dict(learn_step=True)), 'go together'),
        (dict(losses=dict(refinement=RefinementLoss())), 'go together'),
        (dict(losses=dict(contrastive=ContrastiveEnergyLoss()), denoiser=Noise(*SHAPE)), 'losses on energies'),
    ],
)
def test_parts_that_do_not_fit_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        made(**settings)


def test_samplers_that_do_not_fit_are_refused() -> None:
    wanted = Wanted([3], 1, Condition(torch.tensor([1])))
    with pytest.raises(ConfigError, match='a field without time'):
        task(sampler=functools.partial(gradient_descent, steps=3)).draw(wanted)
    with pytest.raises(ConfigError, match='keeps none'):
        task(sampler=functools.partial(refined, sampler=functools.partial(ancestral, steps=2))).draw(wanted)


def test_shapes_reach_the_network_inside() -> None:
    model = VQTaskRegistry.build(
        dict(
            type='DiffusionTask',
            image_size=8,
            denoiser=dict(type='Energy', denoiser=dict(type='DiT', dim=16, depth=1, heads=2, patch=4)),
            conditioner=dict(type='ClassConditioner', classes=4),
            path=dict(type='BetaPath'),
            times=dict(type='UniformTimes'),
            sampler=dict(type='Refined', sampler=dict(type='Ancestral', steps=2)),
            guidance=dict(type='ConstantGuidance', scale=1.0),
        )
    )
    assert model.denoiser.denoiser.channels == 3 and model.denoiser.denoiser.cells == (8, 8)
    assert model.conditioner.table.weight.shape == (5, 16)
