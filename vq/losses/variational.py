"""The variational bound of a diffusion chain, in bits per dimension (Ho et al. 2020, equation 5; Nichol and Dhariwal 2021).

    -log p(x0) <= KL(q(z_T | x0) | N(0, 1))  +  sum_{t > 1} KL(q(z_s | z_t, x0) | p(z_s | z_t))  -  log p(x0 | z_1)
                  prior                         steps                                               decoder

All values are (B,): means over the numbers of a row, over log 2. fp32, also under autocast.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Prediction
from vq.interfaces import Level, Path
from vq.interfaces.denoisers import Number
from vq.nn.precision import no_autocast
from vq.sampling.posterior import Gaussian, Variance, floor_of, posterior, reverse
from vq.sampling.predictions import noised


class ChainBound(NamedTuple):
    """Bits per dimension: the whole bound (B,), its prior term (B,), and the terms of the steps (T, B) from t = 1 / T up. The
    first of them is the decoder."""

    total: Tensor
    prior: Tensor
    steps: Tensor


def neighbours(path: Path, t: Tensor) -> tuple[Level, Level, float]:
    """Times k / T (B,) of a path with a grid -> the levels at k and at k - 1 in fp64, and the floor of its chain."""
    steps = grid_of(path)
    k = (t.double() * steps).round()
    return path.level(k / steps), path.level((k - 1) / steps), _floor(path, steps)


def grid_of(path: Path) -> int:
    """T."""
    if path.steps is None:
        raise ConfigError(
            f'{type(path).__name__} has no grid of times, and the variational bound is that of a chain of T steps',
            'Give BetaPath, or leave out the bound.',
        )
    return path.steps


def step_bits(
    prediction: Prediction,
    z: Tensor,
    x0: Tensor,
    t: Level,
    s: Level,
    floor: Number,
    *,
    frozen_mean: bool = True,
    pixels: bool = True,
    fixed: Variance = 'small',
) -> Tensor:
    """The term (B,) of the step from t to s, for rows of any times; where s is data, the decoder term.

    ``frozen_mean``: the term trains the variance alone, as beside a squared error. ``pixels``: x0 has 8-bit values in [-1, 1],
    and the decoder gives their probability; otherwise (latents) its density, which can make the bound negative.
    The published sums are  squared error + bits  (with learned variance),  squared error + bits T / 1000  ('rescaled') and
    bits T  (the bound alone, with a mean that learns).
    """
    with no_autocast(z.device):
        if frozen_mean:
            prediction = prediction._replace(value=prediction.value.detach())
        x0 = x0.float()
        truth = posterior(z, x0, t, s, floor)
        found = reverse(prediction, z, t, s, fixed, floor)
        decoder = pixel_nats if pixels else density_nats
        if not isinstance(s.sigma, Tensor):  # one time for all rows
            return _bits(_divergence(truth, found) if s.sigma > 0 else decoder(x0, found))
        return torch.where(s.sigma > 0, _bits(_divergence(truth, found)), _bits(decoder(x0, found)))


def prior_bits(x0: Tensor, last: Level) -> Tensor:
    """KL(q(z_T | x0) | N(0, 1)), (B,): what the end of the path still knows of data."""
    with no_autocast(x0.device):
        alpha, sigma = float(last.alpha), float(last.sigma)
        terms = 0.5 * (sigma**2 - 1 + (alpha * x0.float()).square()) - math.log(sigma)
        return _bits(terms)


@torch.no_grad()
def chain_bits(
    estimate: Callable[[Tensor, float], Prediction],
    x0: Tensor,
    path: Path,
    noise: Callable[[int], Tensor],
    *,
    pixels: bool = True,
    fixed: Variance = 'small',
    steps: int | None = None,
) -> ChainBound:
    """The bound of all steps, T evaluations of ``estimate(z, t)``. ``noise(k)``: standard normal numbers like x0 for step k.

    ``steps``: fewer steps make another chain, whose bound is looser. The path needs a grid.
    """
    times = path.times(steps or grid_of(path), 'respaced')
    floor, terms = floor_of(path, times), []
    for k in range(1, len(times)):
        t, s = (path.level_at(times[-place]) for place in (k + 1, k))
        z = noised(x0.float(), noise(k).float(), t)
        terms.append(step_bits(estimate(z, times[-k - 1]), z, x0, t, s, floor, pixels=pixels, fixed=fixed))
    prior, found = prior_bits(x0, path.level_at(times[0])), torch.stack(terms)
    return ChainBound(prior + found.sum(0), prior, found)


def pixel_nats(x0: Tensor, found: Gaussian) -> Tensor:
    """-log of the probability that a normal number falls into the bin of an 8-bit value, of width 2 / 255 around x0. The bins
    of 0 and 255 reach to infinity. The distribution function is the tanh formula of published figures, and a probability is at
    least 1e-12."""
    inverse = torch.exp(-0.5 * torch.as_tensor(found.log_variance, device=x0.device))
    upper, lower = (_below((x0 - found.mean + side / 255) * inverse) for side in (1, -1))
    inner = (upper - lower).clamp(min=1e-12).log()
    first, last = upper.clamp(min=1e-12).log(), (1 - lower).clamp(min=1e-12).log()
    return -torch.where(x0 < -0.999, first, torch.where(x0 > 0.999, last, inner))


def density_nats(x0: Tensor, found: Gaussian) -> Tensor:
    """-log of the density."""
    log_variance = torch.as_tensor(found.log_variance, device=x0.device)
    return 0.5 * (math.log(2 * math.pi) + log_variance + (x0 - found.mean).square() * torch.exp(-log_variance))


@functools.lru_cache(maxsize=8)
def _floor(path: Path, steps: int) -> float:
    """Of the chain of training."""
    return floor_of(path, [step / steps for step in range(min(steps, 2), -1, -1)])


def _bits(nats: Tensor) -> Tensor:
    """(B, ...) -> (B,) per dimension."""
    return nats.flatten(1).mean(1) / math.log(2)


def _divergence(truth: Gaussian, found: Gaussian) -> Tensor:
    """KL(truth | found), in nats for each number."""
    low, high = (torch.as_tensor(part.log_variance, device=truth.mean.device) for part in (truth, found))
    return 0.5 * (high - low - 1 + torch.exp(low - high) + (truth.mean - found.mean).square() * torch.exp(-high))


def _below(x: Tensor) -> Tensor:
    """The standard normal distribution function, approximately."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
