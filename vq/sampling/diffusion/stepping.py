"""What all samplers do: take the times of the path, ask the denoiser, and put data and noise together at the next time.

The ordinary differential equation of a path,  dz / dt = alpha' x0(z, t) + sigma' eps(z, t),  is the same whatever the time
is called:  dz = x0 d alpha + eps d sigma.  Samplers take their steps in alpha and sigma, and so need no rates of the path.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Prediction, PredictionKind
from vq.interfaces import Drive, Level, Path
from vq.sampling.predictions import data_and_noise

NOTHING = 1e-6  # an alpha or sigma below this is taken for 0


class At(NamedTuple):
    """One time of the path. All are numbers of the host."""

    t: float
    alpha: float
    sigma: float
    level: Level


def at(path: Path, t: float) -> At:
    level = path.level_at(t)
    return At(t, float(level.alpha), float(level.sigma), level)


def intervals(drive: Drive, steps: int, spacing: str) -> Iterator[tuple[At, At]]:
    """(from, to) of each step, from noise to data."""
    return pairwise([at(drive.path, t) for t in drive.path.times(steps, spacing)])


def predicted(drive: Drive, z: Tensor, where: At) -> Prediction:
    prediction = drive.denoise(z, where.t, drive.condition)
    require_determined(prediction.kind, where)
    return prediction


def estimate(drive: Drive, z: Tensor, where: At) -> tuple[Tensor, Tensor]:
    """x0 and eps (B, C, *cells), fp32, or fp64 if the denoiser gives that."""
    return data_and_noise(predicted(drive, z, where), z, where.level)


def require_determined(kind: PredictionKind, where: At) -> None:
    """z_t and the estimate must determine x0 and eps. Only numbers of the host are read."""
    if kind in ('epsilon', 'score') and where.alpha < NOTHING:
        raise ConfigError(
            f'the network estimates {kind}: at t = {where.t:g}, where alpha is 0 on this path, that says nothing of the data',
            'Train the network on velocity, v or x0, or take a path that keeps alpha above 0, as BetaPath does.',
        )
    if kind in ('x0', 'score') and where.sigma < NOTHING:
        raise ConfigError(
            f'the network estimates {kind}: at t = {where.t:g}, where sigma is 0 on this path, that says nothing of the noise',
            'Ask it at times above 0 only.',
        )


def mixed(x0: Tensor, eps: Tensor, where: At) -> Tensor:
    """alpha x0 + sigma eps."""
    return where.alpha * x0 + where.sigma * eps
