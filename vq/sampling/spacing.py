"""Which times a sampler visits.

Paths with a grid number their times k = T .. 0, where 0 is data. Published networks and tables number the noisy ones
from 0: their index is k - 1.

    uniform             k = T (1 - i / S), rounded: from T to 0 (diffusers' 'trailing')
    quadratic           k = T (1 - i / S)^2, rounded: small steps near the data
    respaced            S indices from the first to the last of T, then data (improved DDPM's respacing 'S')
    10,15,20            as many sections of T as numbers, each with so many indices, then data (improved DDPM's)
    strided             S indices by the first whole stride that gives S of them, from index 0, then data ('ddimS' there)
    leading             every (T // S)-th index from index 1, then index 0, which is not data (latent diffusion's 'uniform')
    leading_quadratic   squares of an even ramp up to 0.8 T, from index 1, then index 0 (latent diffusion's 'quad')

Times that coincide after rounding are visited once. The leading ones keep what their networks are sampled by: more than S
steps where S does not divide T, and an end at k = 1, with the noise of that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, repeat

from vq.core.errors import ConfigError

NAMES = ('uniform', 'quadratic', 'respaced', 'strided', 'leading', 'leading_quadratic')


def falling_times(steps: int, spacing: str = 'uniform') -> list[float]:
    """Of a path without a grid: ``steps`` + 1 times from 1 to 0."""
    _check_steps(steps)
    if spacing not in ('uniform', 'quadratic'):
        raise ConfigError(f'spacing is {spacing!r}, on a path without a grid of times', "Give 'uniform' or 'quadratic'.")
    power = 1 if spacing == 'uniform' else 2
    return [((steps - step) / steps) ** power for step in range(steps + 1)]


def falling_grid(count: int, steps: int, spacing: str = 'uniform') -> list[int]:
    """Of a path with T = ``count`` times: falling k, without repetitions."""
    _check_steps(steps)
    if steps > count:
        raise ConfigError(f'{steps} steps on a path of {count} times', f'Give at most {count} steps.')
    if spacing in ('uniform', 'quadratic'):
        power = 1 if spacing == 'uniform' else 2
        grid = [round(count * (steps - step) ** power / steps**power) for step in range(steps + 1)]
    elif spacing == 'leading':
        grid = [1, *(min(index + 2, count) for index in range(0, count, count // steps))]
    elif spacing == 'leading_quadratic':
        ramp = [(0.8 * count) ** 0.5 * step / max(1, steps - 1) for step in range(steps)]
        grid = [1, *(min(int(root**2) + 2, count) for root in ramp)]
    elif spacing == 'strided':
        grid = [0, *(index + 1 for index in _strided(count, steps))]
    elif spacing == 'respaced':
        grid = [0, *(index + 1 for index in spaced(count, [steps]))]
    else:
        grid = [0, *(index + 1 for index in spaced(count, _sections(spacing, steps)))]
    return sorted(set(grid), reverse=True)


def spaced(count: int, sections: Sequence[int]) -> list[int]:
    """Rising indices below ``count``: it is cut into equal sections, and each gives the number of indices that is asked of it,
    its first and last among them."""
    indices: list[int] = []
    start = 0
    for number, wanted in enumerate(sections):
        size = count // len(sections) + (number < count % len(sections))
        if not 0 < wanted <= size:
            raise ConfigError(f'{wanted} steps in section {number} of {size} times', f'Give from 1 to {size}.')
        stride = (size - 1) / (wanted - 1) if wanted > 1 else 1.0
        # sums, not multiples: where they end between two indices, published grids follow the sum
        indices += [start + round(place) for place in accumulate(repeat(stride, wanted - 1), initial=0.0)]
        start += size
    return indices


def _strided(count: int, steps: int) -> list[int]:
    for stride in range(1, count + 1):
        if len(indices := list(range(0, count, stride))) == steps:
            return indices
    raise ConfigError(
        f'no whole stride gives {steps} of {count} times', "Give another number of steps, or the spacing 'respaced'."
    )


def _sections(spacing: str, steps: int) -> list[int]:
    numbers = spacing.split(',')
    if not all(number.strip().isdecimal() for number in numbers):
        raise ConfigError(f'unknown spacing {spacing!r}', f"Give one of {', '.join(NAMES)}, or sections, as in '10,15,20'.")
    sections = [int(number) for number in numbers]
    if sum(sections) != steps:
        raise ConfigError(f'the sections {spacing} have {sum(sections)} steps, and steps is {steps}', 'Let them agree.')
    return sections


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ConfigError(f'a sampler of {steps} steps', 'Give at least 1.')
