"""Grids of sampling times: against diffusers, and what they refuse. Published tables are in tests/golden."""

from __future__ import annotations

from fractions import Fraction

import pytest

from vq.core.errors import ConfigError
from vq.sampling.spacing import NAMES, falling_grid, falling_times, spaced


def test_grids_of_diffusers() -> None:
    from diffusers import DDIMScheduler

    trailing = DDIMScheduler(timestep_spacing='trailing')
    for steps in (1, 7, 16, 45, 250, 999, 1000):
        trailing.set_timesteps(steps)
        assert [k - 1 for k in falling_grid(1000, steps)[:-1]] == trailing.timesteps.tolist()
    leading = DDIMScheduler(timestep_spacing='leading', steps_offset=1, set_alpha_to_one=False)
    for steps in (10, 20, 50):
        leading.set_timesteps(steps)
        assert [k - 1 for k in falling_grid(1000, steps, 'leading')] == [*leading.timesteps.tolist(), 0]


def test_uniform_grid_is_rounded_half_to_even() -> None:
    for steps in (1, 7, 16, 48, 250, 999, 1000):
        exact = [Fraction(1000 * (steps - step), steps) for step in range(steps)]
        assert falling_grid(1000, steps) == [*(round(place) for place in exact), 0]


def test_sections() -> None:
    assert spaced(300, [10, 15, 20])[:3] == [0, 11, 22] and len(spaced(300, [10, 15, 20])) == 45
    assert spaced(10, [10]) == list(range(10)) and spaced(7, [1]) == [0] and spaced(7, [2]) == [0, 6]
    assert spaced(5, [2, 2]) == [0, 2, 3, 4]
    assert falling_grid(1000, 45, '10,15,20') == [0, *(k + 1 for k in spaced(1000, [10, 15, 20]))][::-1]


@pytest.mark.parametrize('spacing', NAMES)
@pytest.mark.parametrize(('count', 'steps'), [(1000, 1), (1000, 25), (1000, 1000), (7, 7), (1, 1)])
def test_grids_fall_within_the_path(spacing: str, count: int, steps: int) -> None:
    grid = falling_grid(count, steps, spacing)
    leading = spacing.startswith('leading')
    assert grid == sorted(set(grid), reverse=True) and grid[0] <= count and grid[-1] == (1 if leading else 0)
    if spacing in ('uniform', 'respaced', 'strided'):
        assert len(grid) == steps + 1
    if spacing in ('uniform', 'quadratic') or (spacing == 'respaced' and steps > 1):
        assert grid[0] == count


@pytest.mark.parametrize(
    ('count', 'steps', 'spacing', 'message'),
    [
        (1000, 0, 'uniform', 'a sampler of 0 steps'),
        (50, 51, 'uniform', 'Give at most 50'),
        (1000, 333, 'strided', 'no whole stride gives 333 of 1000'),
        (1000, 45, '10,15', '25 steps, and steps is 45'),
        (30, 20, '5,15', 'None'),
        (20, 20, '5,15', 'section 1 of 10 times'),
        (1000, 10, 'karras', 'uniform, quadratic, respaced'),
    ],
)
def test_grids_that_do_not_exist(count: int, steps: int, spacing: str, message: str) -> None:
    if message == 'None':
        assert len(falling_grid(count, steps, spacing)) == 21
        return
    with pytest.raises(ConfigError, match=message):
        falling_grid(count, steps, spacing)


def test_paths_without_a_grid() -> None:
    assert falling_times(4) == [1, 0.75, 0.5, 0.25, 0] and falling_times(2, 'quadratic') == [1, 0.25, 0]
    with pytest.raises(ConfigError, match='without a grid'):
        falling_times(4, 'leading')
