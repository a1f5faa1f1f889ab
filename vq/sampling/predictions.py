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

from typing import NamedTuple

import torch
from torch import Tensor

from vq.core.records import Prediction, PredictionKind


class Level(NamedTuple):
    """The level of noise at a time t: alpha and sigma, and their derivatives by t, (B,) each."""

    alpha: Tensor
    sigma: Tensor
    alpha_rate: Tensor
    sigma_rate: Tensor


def linear_level(t: Tensor) -> Level:
    """The straight path of flow matching,  z_t = (1 - t) x0 + t eps."""
    one = torch.ones_like(t)
    return Level(1 - t, t, -one, one)


def cosine_level(t: Tensor) -> Level:
    """The variance-preserving path  alpha = cos(pi t / 2),  sigma = sin(pi t / 2)."""
    angle, rate = t * (torch.pi / 2), torch.pi / 2
    return Level(angle.cos(), angle.sin(), -rate * angle.sin(), rate * angle.cos())


def noised(x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """z_t."""
    alpha, sigma = (_like(value, x0) for value in level[:2])
    return alpha * x0 + sigma * eps


def target_of(kind: PredictionKind, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """What an estimate of ``kind`` is compared with."""
    of_x0, of_eps = (_like(value, x0) for value in _coefficients(kind, level))
    return of_x0 * x0 + of_eps * eps


def converted(prediction: Prediction, z: Tensor, level: Level, kind: PredictionKind) -> Tensor:
    """The estimate of another kind, fp32. ``z`` is z_t (B, C, *cells).

    Where the two equations for z_t and the estimate do not determine x0 and eps (epsilon at alpha = 0, x0 at sigma = 0), the
    result is not finite: no sampler asks at these times for these kinds.
    """
    if prediction.kind == kind:
        return prediction.value.float()
    z, value = z.float(), prediction.value.float()
    alpha, sigma = (_like(part, z) for part in level[:2])
    a, b = (_like(part, z) for part in _coefficients(prediction.kind, level))  # value = a x0 + b eps
    determinant = alpha * b - sigma * a
    x0 = (b * z - sigma * value) / determinant
    eps = (alpha * value - a * z) / determinant
    return target_of(kind, x0, eps, level)


def _coefficients(kind: PredictionKind, level: Level) -> tuple[Tensor, Tensor]:
    """(c, d) of  c x0 + d eps."""
    zero, one = torch.zeros_like(level.alpha), torch.ones_like(level.alpha)
    if kind == 'epsilon':
        return zero, one
    if kind == 'x0':
        return one, zero
    if kind == 'v':
        return -level.sigma, level.alpha
    if kind == 'velocity':
        return level.alpha_rate, level.sigma_rate
    return zero, -1 / level.sigma


def _like(value: Tensor, z: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1), fp32 unless z is fp64."""
    return value.to(torch.promote_types(z.dtype, torch.float32)).view(-1, *[1] * (z.ndim - 1))
