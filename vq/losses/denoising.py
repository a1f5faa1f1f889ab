"""Losses of denoisers: functions with a loss for each row (B,), fp32 also under autocast.

An estimate of any kind has an error in every space, as z_t and one of epsilon, x0, v, velocity and score determine all others.
With weight w the loss is  w |estimate - target|^2, a mean over the numbers of a row. For one z_t, errors in two spaces differ
by a factor of the time alone, so the choice of a space is a choice of weights:

    |x0 error|^2 = sigma^2 / alpha^2 |epsilon error|^2 = sigma^2 |v error|^2   (v: on the circle alpha^2 + sigma^2 = 1)
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from vq.core.errors import ConfigError, listing
from vq.core.records import Prediction, PredictionKind
from vq.interfaces import Level, Path
from vq.nn.precision import no_autocast
from vq.sampling.predictions import determinant, target_of

ElboRule = Literal['derived', 'published']


def squared_error(
    prediction: Prediction, x0: Tensor, eps: Tensor, level: Level, space: PredictionKind | None = None
) -> Tensor:
    """(B,). ``space`` None: that of the estimate. Estimates are not converted: where the factor between the spaces is finite,
    so are loss and gradient."""
    with no_autocast(x0.device):
        target = target_of(prediction.kind, x0.float(), eps.float(), level)
        error = (prediction.value.float() - target).square().flatten(1).mean(1)
        if space in (None, prediction.kind):
            return error
        factor = determinant(space, level) / determinant(prediction.kind, level)
        return error * torch.as_tensor(factor, device=error.device).float() ** 2


def min_snr_weight(level: Level, space: PredictionKind, gamma: float = 5.0) -> Tensor:
    """min(SNR, gamma) |x0 error|^2 as a weight (B,) of the error in ``space``; SNR = alpha^2 / sigma^2  (Hang et al. 2023).

        epsilon  min(SNR, gamma) / SNR        x0  min(SNR, gamma)        v  min(SNR, gamma) / (SNR + 1)  on the circle

    and in general min(SNR, gamma) (x0 error / error in the space)^2. Finite at both ends of a path.
    """
    if not gamma > 0:
        raise ConfigError(f'gamma is {gamma}', 'Give the largest signal to noise ratio that counts, above 0; 5 is usual.')
    alpha, sigma = (torch.as_tensor(value) for value in level[:2])
    # both are the share over the determinant; for three spaces it cancels what would be 0 / 0 at an end
    signal, noise = {
        'epsilon': (torch.ones_like(alpha), sigma / alpha),
        'x0': (alpha / sigma, torch.ones_like(alpha)),
        'score': (sigma, sigma**2 / alpha),
    }.get(space) or (alpha / determinant(space, level), sigma / determinant(space, level))
    return torch.minimum(signal**2, gamma * noise**2).float()


def elbo_weights(path: Path, t: Tensor, kind: PredictionKind, rule: ElboRule = 'derived') -> Tensor:
    """Weights (B,) of |estimate - target|^2 at times t of a grid, which make it a step of the variational bound in nats.

        epsilon   beta^2 / (2 variance (1 - beta) sigma^2) = beta / (2 (1 - beta) sigma_s^2)

    s is the time before t, and variance that of the posterior; the first time, whose step has none, has the weight of the
    second. 'derived': other kinds have the weight of epsilon times the square of |epsilon error| / |error|. 'published' are
    those of latent diffusion: 1 for v, and alpha / (4 - 2 alpha^2) for x0, which looks like a slip.
    """
    if path.steps is None or rule not in get_args(ElboRule):
        grid = 'without' if path.steps is None else 'with'
        raise ConfigError(
            f'a step of the bound by the rule {rule!r}, on a path {grid} a grid of times',
            f'Set path=beta, and a rule of {listing(get_args(ElboRule))}.',
        )
    second = (t * path.steps).round().clamp(min=2) / path.steps
    here, before = path.level(second), path.level(second - 1 / path.steps)
    alpha = torch.as_tensor(here.alpha)
    if rule == 'published' and kind != 'epsilon':
        if kind not in ('v', 'x0'):
            raise ConfigError(
                f"the estimate is of the kind '{kind}'", "The published rule has epsilon, v and x0: take 'derived'."
            )
        return torch.ones_like(alpha) if kind == 'v' else alpha / (4 - 2 * alpha**2)
    kept = (alpha / torch.as_tensor(before.alpha)) ** 2  # 1 - beta
    weight = (1 - kept) / (2 * kept * torch.as_tensor(before.sigma) ** 2)
    return weight * torch.as_tensor(determinant('epsilon', here) / determinant(kind, here)) ** 2
