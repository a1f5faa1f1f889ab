"""Samplers of diffusion: an oracle's data come back, bytes of an image are its own, nothing waits for the device."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.records import Prediction, PredictionKind
from vq.interfaces import Drive, Path
from vq.registries import VQDiffusionSamplerRegistry
from vq.sampling.paths.betas import BetaPath
from vq.sampling.paths.cosine import CosinePath
from vq.sampling.paths.flow import FlowPath
from vq.sampling.predictions import target_of
from vq.sampling.streams import normals

KINDS: tuple[PredictionKind, ...] = get_args(PredictionKind)
PATHS: dict[str, Path] = {
    'flow': FlowPath(),
    'shifted': FlowPath(shift=3.0),
    'cosine': CosinePath(),
    'linear betas': BetaPath(),
    'cosine betas': BetaPath('cosine', steps=100),
}
OTHERS = ('GradientDescent', 'Refined')  # without times of their own: see test_descent.py and test_equilibrium.py
SAMPLERS = [name for name in VQDiffusionSamplerRegistry.names() if name not in OTHERS]
NOISY = {
    'DDIM': dict(eta=1.0),
    'Ancestral': dict(variance='large'),
    'SDE': dict(noise_scale=1.0),
}
SHAPE = (3, 5, 2)


def sampled(kind: str, z: Tensor, drive: Drive, **settings: Any) -> Iterator[Tensor]:
    states: Iterator[Tensor] = VQDiffusionSamplerRegistry.build(dict(type=kind, **settings))(z, drive)
    return states


def streams(ids: list[int], *shape: int) -> Any:
    return lambda step: normals(3, ids, *shape, purpose=f'step {step}')


def oracle(path: Path, kind: PredictionKind, x0: Tensor) -> Any:
    """Knows the data, and takes the rest of z_t for noise."""

    def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
        level = path.level_at(t)
        return Prediction(target_of(kind, x0, (z - level.alpha * x0) / level.sigma, level), kind)

    return denoise


@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize('name', SAMPLERS)
def test_data_of_an_oracle_come_back(name: str, path: str) -> None:
    x0, z = normals(0, [1, 2], *SHAPE), normals(1, [1, 2], *SHAPE)
    for kind in KINDS:
        drive = Drive(oracle(PATHS[path], kind, x0), PATHS[path], None, streams([1, 2], *SHAPE))
        for settings in ({}, NOISY.get(name, {})):
            states = sampled(name, z, drive, steps=7, **settings)
            if kind in ('epsilon', 'score') and 'betas' not in path:
                with pytest.raises(ConfigError, match=f'estimates {kind}.*t = 1.*nothing of the data'):
                    next(states)
                continue
            *_, last = states
            torch.testing.assert_close(last, x0, rtol=1e-4, atol=1e-4)


def test_the_denoiser_gets_the_times_of_the_path() -> None:
    for path, spacing in ((PATHS['linear betas'], 'respaced'), (PATHS['shifted'], 'quadratic')):
        times = path.times(9, spacing)
        for name in SAMPLERS:
            asked: list[float] = []

            def denoise(z: Tensor, t: float, condition: Condition | None, asked: list[float] = asked) -> Prediction:
                asked.append(t)
                return Prediction(0.1 * z, 'v')

            corrected: list[float] = []

            def correct(z: Tensor, t: float, corrected: list[float] = corrected) -> Tensor:
                corrected.append(t)
                return z

            z = normals(1, [1], 4)
            states = sampled(name, z, Drive(denoise, path, None, streams([1], 4), correct), steps=9, spacing=spacing)
            assert len(list(states)) == len(times) - 1 and corrected == times[1:]
            twice = times[1:-1] if name == 'Heun' else times[1:2] if name == 'PLMS' else []
            assert sorted(asked, reverse=True) == sorted([*times[:-1], *twice], reverse=True)


def wobble(z: Tensor, t: float, condition: Condition | None) -> Prediction:
    """Sums and products only: these have the same bits at any place of a tensor."""
    return Prediction(0.3 * z - 0.02 * z * z * z + t, 'v', (0.1 * z).clamp(-1, 1))


@pytest.mark.parametrize('name', SAMPLERS)
def test_bytes_of_an_image_do_not_depend_on_the_batch(name: str) -> None:
    ids = [4, 9, 1, 30, 2]
    for path in (PATHS['flow'], PATHS['linear betas']):
        for settings in ({}, {key: value for key, value in NOISY.get(name, {}).items() if key != 'variance'}):

            def last(ids: list[int], path: Path = path, settings: dict[str, Any] = settings) -> Tensor:
                z = normals(1, ids, *SHAPE)
                *_, end = sampled(name, z, Drive(wobble, path, None, streams(ids, *SHAPE)), steps=6, **settings)
                return end

            whole = last(ids)
            assert torch.equal(last([9, 2]), whole[[1, 4]]) and torch.equal(last([30]), whole[[3]])
            assert torch.equal(last(ids), whole) and whole.dtype == torch.float32


@pytest.mark.parametrize('name', SAMPLERS)
def test_nothing_is_read_back_from_the_device_and_nothing_is_kept(name: str) -> None:
    """Tensors of the meta device have no values: reading one is an error. Low precision of the network goes no further."""
    z = torch.empty(2, *SHAPE, device='meta')

    def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
        return Prediction(z.bfloat16(), 'v', z.bfloat16())

    drive = Drive(denoise, PATHS['linear betas'], None, lambda step: torch.empty_like(z))
    states: list[weakref.ref[Tensor]] = []
    for state in sampled(name, z, drive, steps=6, **{**NOISY, 'Ancestral': {}}.get(name, {})):
        assert state.dtype == torch.float32 and state.shape == z.shape
        states.append(weakref.ref(state))
        assert sum(known() is not None for known in states) <= 2  # this one, and the one whose loop variable it takes over
    del state
    assert all(known() is None for known in states)


def test_noise_is_asked_for_where_it_is_needed() -> None:
    def steps_with_noise(name: str, **settings: Any) -> list[int]:
        asked: list[int] = []

        def noise(step: int) -> Tensor:
            asked.append(step)
            return torch.zeros(2, 4)

        list(sampled(name, torch.ones(2, 4), Drive(wobble, PATHS['linear betas'], None, noise), steps=4, **settings))
        return asked

    for name in SAMPLERS:
        assert steps_with_noise(name, **NOISY.get(name, {})) == ([0, 1, 2] if name in NOISY else [])
    assert steps_with_noise('DDIM') == steps_with_noise('SDE', noise_scale=0.0) == []


def test_relations_between_samplers() -> None:
    z, ids = normals(1, [1, 2], *SHAPE), [1, 2]
    drive = Drive(wobble, PATHS['linear betas'], None, streams(ids, *SHAPE))

    def last(name: str, **settings: Any) -> Tensor:
        *_, end = sampled(name, z, drive, **{'steps': 8, **settings})
        return end

    euler = last('Euler')
    torch.testing.assert_close(last('DDIM'), euler)
    torch.testing.assert_close(last('SDE', noise_scale=0.0), euler)
    torch.testing.assert_close(last('DDIM', eta=1.0), last('Ancestral', variance='small'), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last('Ancestral', variance='learned'), last('Ancestral'))
    assert not torch.allclose(last('Ancestral', variance='large'), last('Ancestral', variance='small'), atol=1e-3)
    for one, two in itertools.combinations(['Heun', 'PLMS', 'DPMSolver', 'Euler'], 2):
        assert not torch.allclose(last(one), last(two), atol=1e-5)


def test_a_learned_variance_goes_from_the_small_to_the_large_one() -> None:
    z = normals(1, [1, 2], *SHAPE)

    def first(value: float, **settings: Any) -> Tensor:
        def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
            return Prediction(0.1 * z, 'epsilon', torch.full_like(z, value))

        drive = Drive(denoise, PATHS['linear betas'], None, lambda step: torch.ones_like(z))
        return next(sampled('Ancestral', z, drive, steps=10, **settings))

    none = first(0.0, variance='small') - z
    torch.testing.assert_close(first(-1.0), first(0.0, variance='small'))
    torch.testing.assert_close(first(1.0), first(0.0, variance='large'))
    assert none.isfinite().all()


def test_settings_without_sense_are_refused() -> None:
    z = normals(1, [1], *SHAPE)
    drive = Drive(lambda z, t, condition: Prediction(z, 'v'), PATHS['linear betas'], None, streams([1], *SHAPE))
    for name, settings, match in (
        ('DDIM', dict(eta=-0.5), 'eta is -0.5'),
        ('SDE', dict(noise_scale=-1.0), 'noise_scale is -1'),
        ('Ancestral', dict(variance='huge'), "variance is 'huge'"),
        ('Ancestral', dict(variance='learned'), 'does not estimate any'),
        *((name, dict(steps=0), '0 steps') for name in SAMPLERS),
        *((name, dict(spacing='odd'), "'odd'") for name in SAMPLERS),
    ):
        with pytest.raises(ConfigError, match=match):
            next(sampled(name, z, drive, **settings))


@pytest.mark.parametrize('kind', ['epsilon', 'v'])
def test_dpm_solver_is_that_of_diffusers(kind: PredictionKind) -> None:
    import diffusers

    peer = diffusers.DPMSolverMultistepScheduler(
        beta_schedule='linear',
        beta_start=1e-4,
        beta_end=2e-2,
        algorithm_type='dpmsolver++',
        solver_order=2,
        prediction_type='epsilon' if kind == 'epsilon' else 'v_prediction',
        timestep_spacing='trailing',
        final_sigmas_type='zero',
    )
    peer.set_timesteps(20)
    z = theirs = normals(1, [1, 2], *SHAPE).double()
    asked: list[int] = []

    def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
        asked.append(round(1000 * t) - 1)
        return Prediction(0.7 * z + 0.3 * torch.sin(3 * z + 5 * asked[-1] / 1000), kind)

    states = list(sampled('DPMSolver', z, Drive(denoise, PATHS['linear betas'], None, streams([1, 2], *SHAPE)), steps=20))
    assert asked == peer.timesteps.tolist()
    for time, ours in zip(peer.timesteps, states, strict=True):
        theirs = peer.step(denoise(theirs, (float(time) + 1) / 1000, None).value, time, theirs).prev_sample
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
