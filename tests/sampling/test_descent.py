"""The inner loop: descent on energies, alone and after the steps of a sampler."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.denoisers.test_energy import energy, inputs
from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.records import Prediction
from vq.interfaces import Drive
from vq.registries import VQDiffusionSamplerRegistry
from vq.sampling.curvature import largest_curvature, step_from_curvature
from vq.sampling.descent import Descent, count_at, counts_at, descend, largest_count
from vq.sampling.diffusion.ancestral import ancestral
from vq.sampling.guidance import constant
from vq.sampling.guided import Guided
from vq.sampling.paths import BetaPath
from vq.sampling.streams import normals
from vq.sampling.thresholds import Thresholded

CURVES = torch.tensor([[1.0, 4.0, 0.5], [2.0, 10.0, 3.0]])  # of two rows: E = sum of curve z^2 / 2


def bowl(z: Tensor, curves: Tensor = CURVES, kind: Any = 'epsilon') -> Prediction:
    """Energies with a known minimum at 0, of z (B, 3)."""
    gradient = curves * z
    return Prediction(-gradient if kind in ('x0', 'score') else gradient, kind, energy=(z * gradient).sum(1) / 2)


def start(rows: int = 2) -> Tensor:
    return torch.tensor([[1.0, -2.0, 3.0], [0.5, 1.5, -1.0]])[:rows]


@pytest.mark.parametrize('kind', ['epsilon', 'velocity', 'x0', 'score'])
def test_steps_go_down_by_hand(kind: str) -> None:
    z, a = start(), torch.tensor([0.1, 0.05])
    found = descend(functools.partial(bowl, kind=kind), z, 3, a)
    torch.testing.assert_close(found.z, z * (1 - a[:, None] * CURVES) ** 3)
    assert found.accepted.all() and float(found.rate) == 1
    torch.testing.assert_close(found.energies[2], bowl(z * (1 - a[:, None] * CURVES) ** 2).energy)
    torch.testing.assert_close(found.drops.sum(0), found.energies[0] - found.energies[-1])


@pytest.mark.parametrize('size', [0.01, 0.3, 0.6, 5.0])
def test_acceptance_never_raises_the_energy(size: float) -> None:
    """With a step of 0.3 the first row converges and the second one diverges: only it stays."""
    found = descend(bowl, start(), 4, size)
    assert (found.drops >= 0).all()
    always = descend(bowl, start(), 1, size, accept='always')
    for row in range(2):
        rises = bool(always.energies[1, row] > always.energies[0, row])
        assert bool(found.accepted[0, row]) != rises
        if rises:
            assert torch.equal(found.z[row], start()[row]) and not found.accepted[:, row].any()
    assert size != 0.3 or found.accepted[0].tolist() == [True, False]


def test_a_network_is_descended_and_rejected_samples_are_unchanged() -> None:
    model = energy('dit').eval()
    for parameter in model.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    z, t, condition = inputs(6)
    with torch.inference_mode():
        found = descend(lambda z: model(z, t, condition), z, 4, 0.5)
        there = model(found.z, t, condition).energy
    torch.testing.assert_close(there, found.energies[-1])
    assert (found.drops >= 0).all() and 0 < float(found.rate) < 1
    never = ~found.accepted.any(0)
    assert never.any() and torch.equal(found.z[never], z[never])


def test_limits_and_counts_of_rows() -> None:
    limit = torch.tensor([1.5, 0.7])
    found = descend(bowl, start(), 1, 1e-3, accept='always', limit=limit)
    torch.testing.assert_close(found.z, (start() * (1 - 1e-3 * CURVES)).clamp(-limit[:, None], limit[:, None]))
    found = descend(bowl, start(), 4, 0.05, counts=torch.tensor([1, 3]))
    assert found.accepted.sum(0).tolist() == [1, 3] and found.tried.sum(0).tolist() == [1, 3] and float(found.rate) == 1
    torch.testing.assert_close(found.z[0], descend(bowl, start(), 1, 0.05).z[0])


def test_more_steps_where_there_is_more_noise() -> None:
    assert [count_at(t, None) for t in (0.0, 0.1, 0.25, 0.5, 1.0)] == [5, 6, 7, 10, 10]
    assert count_at(1e-3, 1000, 5) == 5 and count_at(1.0, None, 1, 0.0) == 1 and count_at(1.0, None, 50, 2.0, 12) == 12
    t = torch.rand(200, generator=torch.Generator().manual_seed(0))
    for steps in (None, 250):
        times = t if steps is None else ((t * steps).floor() + 1) / steps
        assert counts_at(times, steps).tolist() == [count_at(float(one), steps, 2) for one in times]
    assert largest_count(2, 2.0, 10) == 6 and int(counts_at(torch.ones(1), None).max()) == 6


def test_langevin_steps_add_noise_of_their_size() -> None:
    numbers = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    found = descend(bowl, start(), 1, 0.02, accept='always', noise=lambda step: numbers, temperature=3.0)
    torch.testing.assert_close(found.z, start() * (1 - 0.02 * CURVES) + (2 * 0.02 * 3.0) ** 0.5 * numbers)


@pytest.mark.slow
@pytest.mark.parametrize(('accept', 'size'), [('metropolis', 0.3), ('always', 0.02)])
def test_langevin_samples_the_distribution_of_the_energy(accept: Any, size: float) -> None:
    """exp(-E / temperature): normal with the variances temperature / curve. Without a correction only for short steps."""
    rows, stream = 4000, torch.Generator().manual_seed(0)
    curves, temperature = torch.tensor([1.0, 3.0, 0.5]), 0.5
    found = descend(
        functools.partial(bowl, curves=curves),
        torch.randn(rows, 3, generator=stream),
        int(20 / size),
        size,
        accept=accept,
        noise=lambda step: torch.randn(rows, 3, generator=stream),
        temperature=temperature,
    )
    torch.testing.assert_close(found.z.var(0), temperature / curves, rtol=0.1, atol=0.0)
    assert (found.z.mean(0).abs() < 0.08).all()
    assert accept == 'always' or 0.5 < float(found.rate) < 1


def test_recomputed_steps_have_the_same_gradients() -> None:
    found = []
    for recompute in (False, True):
        model = energy('dit', learn_step=True, step=0.05).train()
        z, t, condition = inputs()
        end = descend(lambda z, m=model, t=t, c=condition: m(z, t, c), z, 2, model.step, accept='always', recompute=recompute)
        found.append(torch.autograd.grad(end.energies[-1].sum(), list(model.parameters()), allow_unused=True))
    for plain, again in zip(*found, strict=True):
        assert (plain is None) == (again is None)
        if plain is not None:
            torch.testing.assert_close(plain, again, rtol=1e-5, atol=1e-6)


# curvature


def test_curvature_of_a_bowl() -> None:
    z, first = start(), torch.ones(2, 3)
    torch.testing.assert_close(largest_curvature(bowl, z, first, 12), CURVES.amax(1), rtol=1e-3, atol=0.0)
    sizes = step_from_curvature(bowl, z, first, 0.5, 12, most=0.1)
    torch.testing.assert_close(sizes, torch.tensor([0.1, 0.05]), rtol=1e-3, atol=0.0)
    rises = descend(bowl, z, 3, step_from_curvature(bowl, z, first, 1.9, 12, most=9.0))
    assert rises.accepted.all()
    hill = largest_curvature(functools.partial(bowl, curves=-CURVES), z, first, 12)
    torch.testing.assert_close(hill, CURVES.amax(1), rtol=1e-3, atol=0.0)


# after the steps of a sampler

PATH = BetaPath('linear', steps=100)


def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
    """E = w(t) |z|^2 / 2, so the noise is w(t) z. Rows with a condition have it around their class."""
    centre = torch.zeros(len(z), 1, 1, 1)
    if condition is not None and condition.category is not None:
        null = torch.zeros(len(z), dtype=torch.bool) if condition.null is None else condition.null
        centre = torch.where(null, 0.0, condition.category.float()).view(-1, 1, 1, 1)
    gradient = (0.5 + t) * (z - centre)
    return Prediction(gradient, 'epsilon', energy=((z - centre) * gradient).flatten(1).sum(1) / 2)


def drive(network: Any = denoise, condition: Condition | None = None, step: float | None = 0.05, **more: Any) -> Drive:
    def noise(number: int) -> Tensor:
        return normals(3, [0, 1], 3, 2, 2, purpose=f'step {number}')

    return Drive(network, PATH, condition, noise, inner_step=step, **more)


def drawn(given: Drive, **settings: Any) -> list[Tensor]:
    inner = dict(type='Ancestral', steps=settings.pop('steps', 5))
    made = VQDiffusionSamplerRegistry.build(dict(type='Refined', sampler=inner, **settings))
    return list(made(normals(3, [0, 1], 3, 2, 2), given))


def test_the_inner_loop_sees_the_time_of_the_denoiser() -> None:
    """On a path of 100 times and 5 steps, all times are multiples of 1 / 100: those of training, not numbers of steps."""
    seen: list[tuple[float, Tensor]] = []

    def watched(z: Tensor, t: float, condition: Condition | None) -> Prediction:
        seen.append((t, z))
        return denoise(z, t, condition)

    found: list[Descent] = []
    states = drawn(drive(watched, observe=found.append), steps=5)
    times = PATH.times(5)
    expected = []
    for here, there in itertools.pairwise(times):
        expected += [here] + ([there] * (1 + count_at(there, 100)) if there > 0 else [])
    assert [t for t, _ in seen] == expected and len(states) == 5 and len(found) == 4
    assert all(round(t * 100) == pytest.approx(t * 100) for t, _ in seen)
    assert [len(one.accepted) for one in found] == [count_at(t, 100) for t in times[1:-1]]


def test_each_step_is_followed_by_the_descent() -> None:
    """By hand: a step of the sampler, then the inner steps at its new time, within the limit."""
    given, z, times = drive(), normals(3, [0, 1], 3, 2, 2), PATH.times(2)
    first = next(ancestral(z, given, steps=2))
    expected = first
    for _ in range(count_at(times[1], 100, 2)):
        moved = expected - 0.05 * (0.5 + times[1]) * expected
        limit = 2 * float(PATH.level_at(times[1]).alpha)
        moved = moved.clamp(-limit, limit)
        rises = denoise(moved, times[1], None).energy > denoise(expected, times[1], None).energy
        assert not rises.any()
        expected = moved
    states = drawn(given, steps=2, count=2)
    torch.testing.assert_close(states[0], expected)
    torch.testing.assert_close(drawn(given, steps=2, count=2, size=0.2)[0], drawn(drive(step=0.2), steps=2, count=2)[0])


def test_a_step_size_and_noise_of_its_own() -> None:
    plain, noisy, again = (drawn(drive(), langevin=noise, steps=3) for noise in (False, True, True))
    assert not torch.allclose(plain[-1], noisy[-1]) and torch.equal(noisy[-1], again[-1])
    by_curvature: list[Descent] = []
    drawn(drive(step=100.0, observe=by_curvature.append), steps=3, curvature=0.5, limit=None)
    assert all(one.accepted.all() for one in by_curvature), 'steps of 100 alone would be rejected'


@pytest.mark.parametrize('scale', [0.0, 1.0, 3.0])
def test_guided_energies_are_those_of_guided_estimates(scale: float) -> None:
    condition = Condition(torch.tensor([1, 2]))
    guided = Guided(denoise, functools.partial(constant, scale=scale))
    z = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    found = guided(z, 0.3, condition)
    assert found.energy is not None
    (gradient,) = torch.autograd.grad(found.energy.sum(), z)
    torch.testing.assert_close(gradient, found.value.detach().to(gradient), rtol=1e-5, atol=1e-6)
    totals: list[Descent] = []
    drawn(drive(guided, condition, observe=totals.append), steps=3)
    assert all((one.drops >= 0).all() for one in totals) and any(one.accepted.any() for one in totals)


@pytest.mark.parametrize(
    'network',
    [
        lambda z, t, condition: denoise(z, t, condition)._replace(energy=None),
        Guided(denoise, functools.partial(constant, scale=2.0), channels=1),
        Thresholded(denoise, PATH),
    ],
)
def test_estimates_without_energies_are_refused(network: Any) -> None:
    with pytest.raises(ConfigError, match='needs energies'):
        drawn(drive(network, Condition(torch.tensor([1, 2]))))


@pytest.mark.parametrize(
    ('settings', 'match'),
    [
        (dict(count=0), '0 steps'),
        (dict(size=-1.0), r'size -1\.0'),
        (dict(accept='sometimes'), "accept is 'sometimes'"),
        (dict(accept='metropolis'), 'without noise'),
        (dict(temperature=0.0), 'temperature 0'),
        (dict(curvature=0.0), 'curvature 0'),
        (dict(curvature=1.0, power_steps=0), '0 power iterations'),
        (dict(most=1000), 'at most 1000'),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        drawn(drive(), **settings)
    with pytest.raises(ConfigError, match='no step size'):
        drawn(drive(step=None))
