"""Distributions of one reverse step of a diffusion, for any path and any two times s < t (Kingma et al. 2021, appendix A).

    q(z_t | z_s)      = N(a z_s, b)       a = alpha_t / alpha_s,  b = sigma_t^2 - a^2 sigma_s^2
    q(z_s | z_t, x0)  = N(a sigma_s^2 / sigma_t^2 z_t + alpha_s b / sigma_t^2 x0,  b sigma_s^2 / sigma_t^2)

With neighbours on a grid of betas, b is beta_t, and these are the equations of Ho et al. (2020). Levels hold numbers, for one
time of all rows, or tensors (B,). b is a small difference: give levels of fp64 times where tensors are used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vq.core.records import Prediction
from vq.interfaces import Level, Path
from vq.interfaces.denoisers import Number
from vq.sampling.predictions import data_and_noise, spread, wide

Variance = Literal['small', 'large']


class Gaussian(NamedTuple):
    """Variance and its logarithm are numbers, or tensors that broadcast with the mean. Where s is data (sigma_s = 0) the
    variance can be 0, and its logarithm is then that of a floor."""

    mean: Tensor  # (B, C, *cells)
    variance: Number
    log_variance: Number


def transition(t: Level, s: Level) -> tuple[Number, Number]:
    """a and b of q(z_t | z_s)."""
    ratio = t.alpha / s.alpha
    return ratio, t.sigma**2 - (ratio * s.sigma) ** 2


def posterior(z: Tensor, x0: Tensor, t: Level, s: Level, floor: Number = 1e-20) -> Gaussian:
    """q(z_s | z_t, x0). ``floor``: see ``floor_of``."""
    ratio, step = transition(t, s)
    variance = step * s.sigma**2 / t.sigma**2
    of_z, of_x0 = ratio * s.sigma**2 / t.sigma**2, s.alpha * step / t.sigma**2
    mean = spread(of_z, z) * z.to(wide(z)) + spread(of_x0, z) * x0.to(wide(z))
    return Gaussian(mean, spread(variance, z), spread(_log(_at_data(s, floor, variance)), z))


def reverse(
    prediction: Prediction,
    z: Tensor,
    t: Level,
    s: Level,
    fixed: Variance = 'small',
    floor: Number = 1e-20,
    x0: Tensor | None = None,
) -> Gaussian:
    """p(z_s | z_t) of a network: the posterior at the x0 of its estimate, or at ``x0`` (one that was clipped).

    A variance v in [-1, 1] that the network learned lies between both bounds,
    log variance = w log b + (1 - w) log(b sigma_s^2 / sigma_t^2),  w = (v + 1) / 2  (Nichol and Dhariwal 2021, equation 15).
    Otherwise the variance is the lower bound ('small') or b ('large', with ``floor`` where s is data).
    """
    if x0 is None:
        x0, _ = data_and_noise(prediction, z, t)
    mean, variance, low = posterior(z, x0, t, s, floor)
    _, step = transition(t, s)
    if prediction.variance is not None:
        share = (prediction.variance.to(wide(z)) + 1) / 2
        log_variance = share * spread(_log(step), z) + (1 - share) * low
        return Gaussian(mean, log_variance.exp(), log_variance)
    if fixed == 'small':
        return Gaussian(mean, variance, low)
    step = _at_data(s, floor, step)
    return Gaussian(mean, spread(step, z), spread(_log(step), z))


def floor_of(path: Path, times: Sequence[float]) -> float:
    """In the last of falling times, to data, the variance of q(z_s | z_t, x0) is 0. In the logarithm stands that of the step
    before (Ho et al. 2020); of a single step, its b."""
    t, s = (path.level_at(time) for time in (times[-3:-1] if len(times) > 2 else times))
    _, step = transition(t, s)
    return float(step * s.sigma**2 / t.sigma**2 if len(times) > 2 else step)


def _at_data(s: Level, there: Number, elsewhere: Number) -> Number:
    """Chooses by s, whether it is data."""
    if isinstance(s.sigma, Tensor):
        return torch.where(s.sigma > 0, elsewhere, there)
    return elsewhere if s.sigma > 0 else there


def _log(value: Number) -> Number:
    return value.log() if isinstance(value, Tensor) else math.log(value)
