"""Variance-preserving paths on a grid of times, from schedules of betas."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Level, Path
from vq.registries import VQPathRegistry
from vq.sampling.spacing import falling_grid

Schedule = Literal['linear', 'scaled_linear', 'cosine', 'sqrt']
EPS = float(np.finfo(np.float64).eps)
RANGES = {'linear': (1e-4, 2e-2), 'scaled_linear': (8.5e-4, 1.2e-2), 'sqrt': (1e-4, 2e-2)}


def betas_of(schedule: Schedule, steps: int, start: float | None = None, end: float | None = None) -> np.ndarray:
    """beta_1 .. beta_T (T,), fp64."""
    if schedule == 'cosine':
        if (start, end) != (None, None):
            raise ConfigError('the cosine schedule has no start and end', 'Leave them out.')
        level = np.cos((np.arange(steps + 1) / steps + 8e-3) / (1 + 8e-3) * math.pi / 2) ** 2
        betas: np.ndarray = np.minimum(1 - level[1:] / level[:-1], 0.999)
        return betas
    if schedule not in RANGES:
        raise ConfigError(f'unknown schedule {schedule!r}', f'Give one of {", ".join((*RANGES, "cosine"))}.')
    first, last = (usual if given is None else given for given, usual in zip((start, end), RANGES[schedule], strict=True))
    if schedule == 'linear':
        return np.linspace(first, last, steps) * (1000 / steps)
    if schedule == 'scaled_linear':
        return np.linspace(first**0.5, last**0.5, steps) ** 2
    return np.linspace(first, last, steps) ** 0.5


@VQPathRegistry.register_()
class BetaPath(Path):
    """alpha_k^2 = prod_{j <= k} (1 - beta_j),  sigma_k^2 = 1 - alpha_k^2  at t = k / T,  k = 0 .. T  (Ho et al. 2020).

    k = 0 is data; the published alpha_bar of index i is that of k = i + 1. Schedules, from ``start`` to ``end``:

        linear          an even ramp, times 1000 / T     DDPM, improved DDPM, DiT; 'sqrt_linear' in latent diffusion
        scaled_linear   the square of an even ramp       latent diffusion and Stable Diffusion, which call it 'linear'
                        between square roots
        cosine          1 - f(k) / f(k - 1), at most     'squaredcos_cap_v2' in improved DDPM and diffusers
                        0.999,  f(k) = cos^2((k / T + 0.008) / 1.008 pi / 2)
        sqrt            the root of an even ramp         latent diffusion

    Between the times of the grid, the angle of (alpha, sigma) on the unit circle is a monotone cubic of t with continuous
    derivatives (Fritsch and Butland 1984), so that ``level`` has true rates everywhere, also on the grid.
    """

    steps: int

    def __init__(
        self, schedule: Schedule = 'linear', steps: int = 1000, start: float | None = None, end: float | None = None
    ) -> None:
        if steps < 1:
            raise ConfigError(f'a path of {steps} times', 'Give at least 1.')
        self.schedule, self.steps = schedule, steps
        betas = betas_of(schedule, steps, start, end)
        if not (betas > 0).all() or not (betas < 1).all():
            raise ConfigError(
                f'betas from {betas.min():.3g} to {betas.max():.3g} ({schedule}, {steps} steps)',
                'They must be above 0 and below 1: change start, end or steps.',
            )
        log = np.concatenate([[0.0], np.log1p(-betas).cumsum()])  # of alpha^2, (T + 1,)
        alpha, sigma = np.exp(log / 2), np.sqrt(-np.expm1(log))
        rises = np.diff(np.arctan2(sigma, alpha))  # of the angle, (T,)
        self.tables = np.stack([alpha, sigma, np.append(rises, 0.0), _slopes(rises)])  # (4, T + 1)
        self.cached: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def level(self, t: Tensor) -> Level:
        t = t.to(torch.promote_types(t.dtype, torch.float32))
        alphas, sigmas, rises, slopes = self._tables(t.device, t.dtype)
        place = (t * self.steps).clamp(0, self.steps)
        near = place.round()
        offset = place - near
        # k / T times T is not always k: what lies within the rounding of t is on the grid, and its level is that of the table
        offset = torch.where(offset.abs() <= 4 * torch.finfo(t.dtype).eps * place, 0.0, offset)
        k, side = near.long(), offset.sign().long()
        far = (k + side).clamp(0, self.steps)
        rise, at_near, at_far, u = rises[torch.minimum(k, far)], slopes[k], slopes[far], offset.abs()
        # the cubic with these slopes at both ends, as a turn from the near one: exact there in any precision
        turn = offset.sign() * (rise * u**2 * (3 - 2 * u) + at_near * u * (1 - u) ** 2 - at_far * u**2 * (1 - u))
        rate = 6 * rise * u * (1 - u) + at_near * (1 - u) * (1 - 3 * u) + at_far * u * (3 * u - 2)
        alpha = alphas[k] * turn.cos() - sigmas[k] * turn.sin()
        sigma = sigmas[k] * turn.cos() + alphas[k] * turn.sin()
        return Level(alpha, sigma, -self.steps * rate * sigma, self.steps * rate * alpha)

    def level_at(self, t: float) -> Level:
        near = round(place := t * self.steps)
        if 0 <= near <= self.steps and abs(place - near) <= 4 * EPS * place:  # on the grid, as in ``level``
            alpha, sigma, _, slope = self.tables[:, near].tolist()
            return Level(alpha, sigma, -self.steps * slope * sigma, self.steps * slope * alpha)
        return Level(*(float(value) for value in self.level(torch.tensor([t], dtype=torch.float64, device='cpu'))))

    def times(self, steps: int, spacing: str = 'uniform') -> list[float]:
        """See ``vq/sampling/spacing.py``. There can be fewer steps, and with 'leading' more, and then the end is 1 / T."""
        return [k / self.steps for k in falling_grid(self.steps, steps, spacing)]

    def _tables(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        if (device, dtype) not in self.cached:
            with torch.inference_mode(False):
                self.cached[device, dtype] = torch.tensor(self.tables, dtype=dtype, device=device)
        return self.cached[device, dtype]


def _slopes(rises: np.ndarray) -> np.ndarray:
    """(T,) rises between points at distance 1 -> (T + 1,) slopes at the points: harmonic means of both sides, and at the ends
    those of a parabola, limited so that the curve stays monotone."""
    if len(rises) == 1:
        return np.repeat(rises, 2)
    inner = 2 * rises[:-1] * rises[1:] / (rises[:-1] + rises[1:])
    ends = [max(0.0, (3 * outer - next_one) / 2) for outer, next_one in (rises[:2], rises[:-3:-1])]
    return np.concatenate([ends[:1], inner, ends[1:]])
