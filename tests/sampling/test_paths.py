"""Paths: ends, the circle, monotone levels, true rates, the same numbers on host and device, times of the grid."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from vq.core.errors import ConfigError
from vq.interfaces import Path
from vq.registries import VQPathRegistry
from vq.sampling.paths.betas import BetaPath, betas_of
from vq.sampling.paths.cosine import CosinePath
from vq.sampling.paths.flow import FlowPath

FINE = torch.linspace(0, 1, 2003, dtype=torch.float64)


def test_a_path_goes_from_data_to_noise_without_a_turn(path: Path) -> None:
    level = path.level(FINE)
    assert level.alpha[0] == 1 and level.sigma[0] == 0
    assert level.alpha[-1] < 0.42 and level.sigma[-1] > 0.9
    assert (level.alpha.diff() <= 0).all() and (level.sigma.diff() >= 0).all()
    assert (level.alpha.diff()[5:-5] < 0).all() and (level.sigma.diff()[5:-5] > 0).all()


def test_rates_are_derivatives(path: Path) -> None:
    t, step = FINE[5:-5] + 1e-5, 1e-7  # between times of the grids
    level, before, after = path.level(t), path.level(t - step), path.level(t + step)
    for name, scale in (('alpha', level.alpha_rate), ('sigma', level.sigma_rate)):
        rate = (getattr(after, name) - getattr(before, name)) / (2 * step)
        torch.testing.assert_close(rate, scale, rtol=1e-4, atol=1e-5 * float(scale.abs().max()))


def test_variance_preserving_paths_stay_on_the_circle(path: Path) -> None:
    if isinstance(path, FlowPath):
        pytest.skip('the straight path is a chord')
    level = path.level(FINE)
    torch.testing.assert_close(level.alpha**2 + level.sigma**2, torch.ones_like(FINE), rtol=1e-12, atol=0)
    turned = level.alpha * level.alpha_rate + level.sigma * level.sigma_rate
    torch.testing.assert_close(turned, torch.zeros_like(FINE), rtol=0, atol=1e-12 * float(level.sigma_rate.max()))


def test_host_and_device_agree(path: Path) -> None:
    times = [*path.times(3), 1e-4, 0.37, 0.9999]
    for t in times:
        host, wide = path.level_at(t), path.level(torch.tensor([t], dtype=torch.float64))
        narrow = path.level(torch.tensor([t]))
        assert all(type(value) is float for value in host)
        for number, exact, rounded in zip(host, wide, narrow, strict=True):
            assert exact.dtype == torch.float64 and rounded.dtype == torch.float32
            assert number == pytest.approx(float(exact), rel=1e-9, abs=1e-12)
            assert number == pytest.approx(float(rounded), rel=3e-4, abs=1e-5)
    assert path.level(torch.rand(2, dtype=torch.bfloat16)).alpha.dtype == torch.float32
    assert path.level(torch.empty(2, device='meta')).alpha.is_meta


def test_levels_on_the_grid_are_those_of_the_betas_in_fp32() -> None:
    for path in (BetaPath(), BetaPath('cosine'), BetaPath('linear', 50)):
        k = torch.arange(1, path.steps + 1)
        level, alpha_bar = path.level(k / path.steps), np.cumprod(1 - betas_of(path.schedule, path.steps))
        assert torch.equal(level.alpha, torch.tensor(alpha_bar**0.5, dtype=torch.float32))
        torch.testing.assert_close(level.sigma, torch.tensor((1 - alpha_bar) ** 0.5, dtype=torch.float32), rtol=1e-6, atol=0)
        assert path.level_at(7 / path.steps).alpha == pytest.approx(alpha_bar[6] ** 0.5, rel=1e-13)


def test_a_grid_of_the_cosine_schedule_is_the_cosine_path() -> None:
    """Up to its offset of 0.008, which matters near data and noise."""
    level = BetaPath('cosine').level(FINE)
    torch.testing.assert_close(level.alpha, (FINE * torch.pi / 2).cos(), rtol=0, atol=0.013)


def test_rates_do_not_jump_on_the_grid() -> None:
    path, k = BetaPath('cosine', 20), torch.arange(1, 20, dtype=torch.float64) / 20
    for around in (-1e-9, 1e-9):
        torch.testing.assert_close(path.level(k + around).sigma_rate, path.level(k).sigma_rate, rtol=1e-6, atol=1e-6)


def test_built_on_meta_used_elsewhere_and_copied() -> None:
    with torch.device('meta'):
        path = VQPathRegistry.build(dict(type='BetaPath', schedule='cosine', steps=10))
    with torch.inference_mode():
        path.level(torch.rand(2))
    scale = torch.ones(2, requires_grad=True)
    (copy.deepcopy(path).level(torch.rand(2)).alpha * scale).sum().backward()
    assert scale.grad is not None


def test_shift_is_that_of_rae() -> None:
    """t' = s t / (1 + (s - 1) t), s = sqrt(16 * 16 * 768 / 4096), for training and for samplers."""
    shift = (16 * 16 * 768 / 4096) ** 0.5
    path = FlowPath(shift)
    t = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    wanted = [0.0, *(shift * time / (1 + (shift - 1) * time) for time in (0.25, 0.5, 0.75)), 1.0]
    assert shift == pytest.approx(6.9282, abs=1e-4) and path.times(4) == pytest.approx(wanted[::-1])
    torch.testing.assert_close(path.shifted(t), torch.tensor(wanted))
    # the same move in signal to noise: it is divided by s^2
    level, moved = path.level(t[1:-1]), path.level(path.shifted(t[1:-1]))
    torch.testing.assert_close((moved.sigma / moved.alpha) / (level.sigma / level.alpha), torch.full((3,), shift))


@pytest.mark.parametrize('spacing', ['uniform', 'quadratic'])
def test_times_fall_from_noise_to_data(path: Path, spacing: str) -> None:
    times = path.times(3, spacing)
    assert times[0] == 1 and times[-1] == 0 and times == sorted(set(times), reverse=True)
    if path.steps is not None:
        places = [time * path.steps for time in times]
        assert places == pytest.approx([round(place) for place in places], abs=1e-9)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(steps=0), 'a path of 0 times'),
        (dict(schedule='linear', steps=10), r'betas from 0.01 to 2 \(linear, 10 steps\)'),
        (dict(schedule='scaled_linear', start=-0.1), 'must be above 0'),
        (dict(schedule='cosine', start=1e-4), 'no start and end'),
        (dict(schedule='sqrt_linear'), 'Give one of linear, scaled_linear, sqrt, cosine'),
    ],
)
def test_schedules_that_make_no_path(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BetaPath(**settings)


def test_the_shifted_cosine_is_that_of_simple_diffusion() -> None:
    path, plain = CosinePath(256 / 64), CosinePath()
    t = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    level = path.level(path.shifted(t))
    wanted = -2 * (torch.pi * t / 2).tan().log() + 2 * math.log(64 / 256)  # log of the signal to noise ratio
    torch.testing.assert_close(2 * (level.alpha / level.sigma).log(), wanted)
    assert path.times(4) == pytest.approx(path.shifted(torch.linspace(1, 0, 5, dtype=torch.float64)).tolist())
    assert path.times(4)[0] == 1 and path.times(4)[-1] == 0 and plain.times(4) == [1, 0.75, 0.5, 0.25, 0]
    assert torch.equal(plain.shifted(t), t)
    with pytest.raises(ConfigError, match='shift is -1'):
        CosinePath(-1)


def test_a_shift_that_makes_no_path() -> None:
    with pytest.raises(ConfigError, match='shift is 0'):
        FlowPath(0)
