"""What a denoiser estimates, and the conversion between kinds.

A path mixes data and noise,  z_t = alpha x0 + sigma eps,  with alpha and sigma of the time t. Every kind is a linear
combination of x0 and eps, and so is z_t. z_t and one estimate therefore determine all others:

    epsilon   eps
    x0        x0
    v         alpha eps - sigma x0                     (Salimans and Ho 2022)
    velocity  d z_t / dt = alpha' x0 + sigma' eps      (flow matching)
    score     grad log p(z_t) = -eps / sigma
"""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.records import Prediction, PredictionKind
from vq.interfaces import Level
from vq.interfaces.denoisers import Number

UPHILL = ('x0', 'score')  # kinds that point to the data: an energy that is low there has minus the estimate as its gradient


def noised(x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """z_t."""
    alpha, sigma = (spread(value, x0) for value in level[:2])
    return alpha * x0 + sigma * eps


def target_of(kind: PredictionKind, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """What an estimate of ``kind`` is compared with."""
    of_x0, of_eps = (spread(value, x0) for value in _coefficients(kind, level))
    return of_x0 * x0 + of_eps * eps


def converted(prediction: Prediction, z: Tensor, level: Level, kind: PredictionKind) -> Tensor:
    """The estimate of another kind, fp32 (fp64 if that is the type of its value). ``z`` is z_t (B, C, *cells).

    Where the two equations for z_t and the estimate do not determine x0 and eps (epsilon at alpha = 0, x0 at sigma = 0), the
    result is not finite: no sampler asks at these times for these kinds.
    """
    if prediction.kind == kind:
        return prediction.value.to(wide(prediction.value))
    return target_of(kind, *data_and_noise(prediction, z, level), level)


def data_and_noise(prediction: Prediction, z: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    """x0 and eps (B, C, *cells) of any estimate, fp32 (fp64 if that is the type of its value)."""
    value = prediction.value.to(wide(prediction.value))
    z = z.to(value.dtype)
    alpha, sigma = (spread(part, z) for part in level[:2])
    a, b = (spread(part, z) for part in _coefficients(prediction.kind, level))  # value = a x0 + b eps
    scale = spread(determinant(prediction.kind, level), z)
    return (b * z - sigma * value) / scale, (alpha * value - a * z) / scale


def determinant(kind: PredictionKind, level: Level) -> Number:
    """Of the equations  z_t = alpha x0 + sigma eps,  estimate = a x0 + b eps,  for x0 and eps:  alpha b - sigma a.

    For one z_t, errors of two kinds are in the ratio of their determinants.
    """
    a, b = _coefficients(kind, level)
    return level.alpha * b - level.sigma * a


def wide(z: Tensor) -> torch.dtype:
    """The type to calculate in: fp32, or fp64 for fp64."""
    return torch.promote_types(z.dtype, torch.float32)


def spread(value: Number, z: Tensor) -> Number:
    """(B,) -> (B, 1, ..., 1) in the wide type of z (B, ...); a number stays one."""
    if not isinstance(value, Tensor):
        return value
    return value.to(wide(z)).view(-1, *[1] * (z.ndim - 1))


def _coefficients(kind: PredictionKind, level: Level) -> tuple[Number, Number]:
    """(c, d) of  c x0 + d eps."""
    zero, one = 0 * level.alpha, 0 * level.alpha + 1
    if kind == 'epsilon':
        return zero, one
    if kind == 'x0':
        return one, zero
    if kind == 'v':
        return -level.sigma, level.alpha
    if kind == 'velocity':
        return level.alpha_rate, level.sigma_rate
    return zero, -1 / level.sigma
