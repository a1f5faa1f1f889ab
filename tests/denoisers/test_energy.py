"""Energies of any denoiser: the estimate is their gradient, in training with a second derivative, else without a graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tasks.test_diffusion import Mixer
from vq.core.errors import ConfigError
from vq.core.records import Prediction
from vq.denoisers.blocks import Attention
from vq.denoisers.dit import DiT
from vq.denoisers.energy import Energy
from vq.denoisers.wide_head import WideHeadDiT
from vq.interfaces import Conditioned, Denoiser
from vq.nn.recompute import Recomputed
from vq.nn.second_order import second_order
from vq.registries import VQDenoiserRegistry

SMALL: dict[str, Any] = dict(channels=3, cells=(4, 4), dim=16, depth=2, heads=2)
MODERN = dict(positions='both', norm='rms', mlp='swiglu', qk_norm=True)
KINDS = ['dit', 'modern', 'wide_head', 'any']
REDUCTIONS = ['mean_then_head', 'head_then_mean', 'dot']


def inner(kind: str, estimates: str = 'epsilon') -> Denoiser:
    if kind == 'any':
        made: Denoiser = Mixer(3, (4, 4), dim=16)
    elif kind == 'wide_head':
        made = WideHeadDiT(**SMALL, head_dim=24, head_depth=1, head_heads=2, patch=2)
    else:
        made = DiT(**SMALL, patch=2, **(MODERN if kind == 'modern' else {}))
    made.kind = estimates  # type: ignore[assignment]
    return made


def energy(kind: str = 'dit', reduction: str = 'mean_then_head', estimates: str = 'epsilon', **settings: Any) -> Energy:
    torch.manual_seed(0)
    model = Energy(inner(kind, estimates), 3, (4, 4), reduction, **settings)  # type: ignore[arg-type]
    for parameter in model.denoiser.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def inputs(rows: int = 2, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Conditioned]:
    stream = torch.Generator().manual_seed(1)
    z, t, vector = (torch.randn(rows, *shape, generator=stream, dtype=dtype) for shape in ((3, 4, 4), (), (16,)))
    return z, t.sigmoid(), Conditioned(vector)


def double(model: Energy) -> Energy:
    """In fp64, tables of positions too, which stay fp32 wherever a module moves."""
    model.double()
    for module in model.modules():
        if isinstance(getattr(module, 'table', None), Tensor):
            module.table = module.table.double()  # type: ignore[operator]
    return model


@pytest.mark.slow
@pytest.mark.parametrize('reduction', REDUCTIONS)
@pytest.mark.parametrize('kind', KINDS)
def test_the_estimate_is_the_finite_difference_of_the_energy(kind: str, reduction: str) -> None:
    model = double(energy(kind, reduction, multiplier=3.0)).eval()
    z, t, condition = inputs(dtype=torch.float64)
    found, h = model(z, t, condition), 1e-5
    for place in range(0, z[0].numel(), 5):
        moved = torch.zeros(z[0].numel(), dtype=z.dtype)
        moved[place] = h
        moved = moved.view(z.shape[1:])
        up, down = (model.energy(z + sign * moved, t, condition) for sign in (1, -1))
        expected = 3 * (up - down) / (2 * h)
        torch.testing.assert_close(found.value.flatten(1)[:, place], expected.detach(), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(found.energy, 3 * model.energy(z, t, condition).detach())


@pytest.mark.parametrize(('estimates', 'sign'), [('epsilon', 1), ('v', 1), ('velocity', 1), ('x0', -1), ('score', -1)])
def test_low_energies_are_near_the_data(estimates: str, sign: int) -> None:
    """Noise points away from the data, and data and the score to them."""
    z, t, condition = inputs()
    found, noise = (energy(estimates=kind).eval()(z, t, condition) for kind in (estimates, 'epsilon'))
    assert found.kind == estimates and torch.equal(found.value, sign * noise.value)
    assert torch.equal(found.energy, noise.energy)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['dit', 'modern'])
def test_the_attention_has_a_second_derivative(kind: str) -> None:
    torch.manual_seed(0)
    model = energy(kind)
    attention = double(model).denoiser.blocks[0].attention  # type: ignore[index, union-attr]
    assert isinstance(attention, Attention)
    x = torch.randn(1, 4, 16, dtype=torch.float64, requires_grad=True)
    with second_order():
        assert torch.autograd.gradgradcheck(attention, (x,))


@pytest.mark.parametrize('reduction', REDUCTIONS)
def test_training_differentiates_twice(reduction: str) -> None:
    """The derivative of the squared error by a parameter is its finite difference."""
    model = double(energy(reduction=reduction)).train()
    z, t, condition = inputs(dtype=torch.float64)

    def error() -> Tensor:
        found: Prediction = model(z, t, condition)
        return (found.value - 1).square().mean()

    weight = model.denoiser.blocks[1].mlp.into.weight  # type: ignore[index, union-attr]
    (gradient,) = torch.autograd.grad(error(), weight)
    ends = []
    for h in (1e-5, -1e-5):
        with torch.no_grad():
            weight[3, 2] += h
        ends.append(float(error().detach()))
        with torch.no_grad():
            weight[3, 2] -= h
    assert float(gradient[3, 2]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize('context', [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_drawing_keeps_no_graph(context: Any) -> None:
    """In eval mode, and in training mode without gradients; parameters keep the gradients that they have."""
    model = energy()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    reference = model.train()(*inputs()).value.detach()
    for train in (False, True) if context is not torch.enable_grad else (False,):
        model.train(train)
        with context():
            found = model(*(inputs()))
        assert not found.value.requires_grad and not found.energy.requires_grad
        torch.testing.assert_close(found.value, reference)
    assert all((parameter.grad == 7).all() for parameter in model.parameters())


def test_recomputed_blocks_have_the_same_second_derivatives() -> None:
    found = []
    for recompute in (False, True):
        model = energy('modern').train()
        for module in model.modules():
            if isinstance(module, Recomputed):
                module.recompute = recompute
        loss = model(*inputs()).value.square().mean()
        found.append(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))
    for plain, again in zip(*found, strict=True):
        assert (plain is None and again is None) or torch.equal(plain, again)


def test_every_parameter_is_used() -> None:
    """Data parallel training waits for the gradient of each."""
    for kind in KINDS:
        for reduction in REDUCTIONS:
            model = energy(kind, reduction).train()
            model(*inputs()).value.square().mean().backward()
            unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
            assert not unused, (kind, reduction, unused)


def test_shape_and_step_come_from_the_owner() -> None:
    small = dict(type='DiT', dim=16, depth=1, heads=2, patch=2)
    model = VQDenoiserRegistry.build(dict(type='Energy', denoiser=small, channels=3, cells=(4, 4), step=1e-3), 'denoiser')
    assert model.denoiser.channels == 3 and model.denoiser.cells == (4, 4) and float(model.step) == pytest.approx(1e-3)
    assert 'alpha' in model.state_dict() and 'alpha' not in dict(model.named_parameters())
    learned = energy(learn_step=True, step=0.02, step_rate=4.0)
    assert float(learned.alpha.detach()) == pytest.approx(0.005) and float(learned.step.detach()) == pytest.approx(0.02)
    with torch.no_grad():
        learned.alpha.fill_(-1)
    assert float(learned.step.detach()) == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ('settings', 'match'),
    [
        (dict(reduction='sum'), "reduction is 'sum'"),
        (dict(multiplier=0.0), 'multiplier 0'),
        (dict(step=0.0), 'step is 0'),
        (dict(step_rate=0.0), 'step_rate 0'),
    ],
)
def test_settings_are_checked(settings: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Energy(inner('dit'), 3, (4, 4), **settings)
    with pytest.raises(ConfigError, match='no variance'):
        Energy(DiT(**SMALL, learned_variance=True), 3, (4, 4))
