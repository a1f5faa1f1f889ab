"""Equilibrium matching: a field without time, its loss, and descent on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.denoisers.test_energy import energy, inner, inputs
from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.records import Prediction
from vq.denoisers.equilibrium import Equilibrium
from vq.interfaces import Drive
from vq.losses.denoising import squared_error
from vq.registries import VQDiffusionSamplerRegistry
from vq.sampling.paths import FlowPath
from vq.sampling.predictions import noised
from vq.sampling.streams import normals
from vq.sampling.times import EquilibriumTimes


def equilibrium(**settings: Any) -> Equilibrium:
    network = inner('any', 'velocity')
    return Equilibrium(network, 3, (4, 4), **settings).eval()


def test_the_field_is_the_same_at_all_times() -> None:
    model, (z, _, condition) = equilibrium(), inputs(4)
    t = torch.tensor([1.0, 0.5, 0.1, 0.05])
    found, field = model(z, t, condition), model.field(z, condition).value
    strength = torch.tensor([1.0, 1.0, 0.5, 0.25]).view(-1, 1, 1, 1)  # min(1, t / 0.2)
    torch.testing.assert_close(found.value, field / (4 * strength))
    assert found.kind == 'velocity' and model.timeless


def test_the_loss_is_that_of_equilibrium_matching() -> None:
    """|f - 4 c(t) (eps - x0)|^2 but for one factor; the law's weights have mean 1."""
    model, path = equilibrium(), FlowPath()
    z, _, condition = inputs(6)
    x0, eps = z, torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    t, weights = EquilibriumTimes()((torch.arange(6) + 0.5) / 6, path)
    level = path.level(t)
    found = weights * squared_error(model(noised(x0, eps, level), t, condition), x0, eps, level)
    c = (t / 0.2).clamp(max=1).view(-1, 1, 1, 1)
    error = (model.field(noised(x0, eps, level), condition).value - 4 * c * (eps - x0)).square().flatten(1).mean(1)
    ratio = found / error
    torch.testing.assert_close(ratio, ratio[:1].expand(6))
    _, many = EquilibriumTimes()((torch.arange(10_000) + 0.5) / 10_000, path)
    assert float(many.mean()) == pytest.approx(1, rel=1e-3)
    first = model(z, torch.zeros(6), condition)
    assert torch.isfinite(first.value).all() and EquilibriumTimes()(torch.zeros(1), path)[1] > 0


def test_of_an_energy_the_field_is_its_gradient() -> None:
    made = energy('any', 'dot', 'velocity').eval()
    model, (z, t, condition) = Equilibrium(made, 3, (4, 4)).eval(), inputs()
    found, h = model(z, t, condition), 1e-2
    moved = torch.zeros_like(z)
    moved[:, 1, 2, 3] = h
    ends = [model(z + sign * moved, t, condition).energy for sign in (1, -1)]
    torch.testing.assert_close(found.value[:, 1, 2, 3], (ends[0] - ends[1]) / (2 * h), rtol=1e-2, atol=1e-2)


def descended(data: Tensor, timeless: bool = True, **settings: Any) -> list[Tensor]:
    """By a field whose still point is ``data``."""

    def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
        assert t == 1
        return Prediction(z - data, 'velocity')

    drive = Drive(denoise, FlowPath(), None, lambda step: torch.zeros(1), timeless=timeless)
    z = normals(3, [0, 1], 3, 2, 2)
    with torch.inference_mode():
        return list(VQDiffusionSamplerRegistry.build(dict(type='GradientDescent', **settings))(z, drive))


OPTIMIZERS = {
    'none': None,
    'nesterov': dict(type='SGD', lr=0.1, momentum=0.35, nesterov=True),
    'adam': dict(type='Adam', lr=0.1),
    'adamw': dict(type='AdamW', lr=0.1, weight_decay=0.0),
}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_any_optimizer_descends_to_the_data(name: str) -> None:
    data = torch.full((2, 3, 2, 2), 0.7)
    states = descended(data, steps=150, size=0.1, optimizer=OPTIMIZERS[name])
    torch.testing.assert_close(states[-1], data, rtol=0, atol=0.02)
    assert len(states) == 150
    start = normals(3, [0, 1], 3, 2, 2)
    step = 0.135 if name == 'nesterov' else 0.1  # the first step of Nesterov's momentum is longer
    by_hand = start - 0.1 * (start - data).sign() if 'adam' in name else start - step * (start - data)
    torch.testing.assert_close(states[0], by_hand, rtol=1e-4, atol=1e-4)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match='a field without time'):
        descended(torch.zeros(2, 3, 2, 2), timeless=False)
    with pytest.raises(ConfigError, match='0 steps'):
        descended(torch.zeros(2, 3, 2, 2), steps=0)
    with pytest.raises(ConfigError, match='decay is 1'):
        equilibrium(decay=1.0)
    with pytest.raises(ConfigError, match='decay is 1'):
        EquilibriumTimes(decay=1.0)
    with pytest.raises(ConfigError, match='estimates epsilon'):
        Equilibrium(inner('any'), 3, (4, 4))
