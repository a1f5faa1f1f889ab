"""A quarter of the unit circle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Level, Path
from vq.registries import VQPathRegistry
from vq.sampling.spacing import falling_times

QUARTER = math.pi / 2


@VQPathRegistry.register_()
class CosinePath(Path):
    """alpha = cos(pi t / 2),  sigma = sin(pi t / 2): variance preserving, for all times (Salimans and Ho 2022).

    At t = 1 alpha is 0. The cosine schedule of betas (``BetaPath``) follows almost this path, and stops before alpha is 0.

    ``shift`` s moves times towards noise,  tan(pi t' / 2) = s tan(pi t / 2): those that training draws and those of
    samplers. The signal to noise ratio of all times is divided by s^2; simple diffusion (Hoogeboom et al. 2023) takes s = side
    of the images / 64.
    """

    def __init__(self, shift: float = 1.0) -> None:
        if not shift > 0:
            raise ConfigError(f'shift is {shift}', 'Give a number above 0; 1 does not shift.')
        self.shift = float(shift)

    def shifted(self, t: Tensor) -> Tensor:
        if self.shift == 1:
            return t
        return torch.atan2(self.shift * (QUARTER * t).sin(), (QUARTER * (1 - t)).sin()) / QUARTER

    def level(self, t: Tensor) -> Level:
        t = t.to(torch.promote_types(t.dtype, torch.float32))
        alpha, sigma = (QUARTER * (1 - t)).sin(), (QUARTER * t).sin()  # both exactly 0 at their ends
        return Level(alpha, sigma, -QUARTER * sigma, QUARTER * alpha)

    def level_at(self, t: float) -> Level:
        alpha, sigma = math.sin(QUARTER * (1 - t)), math.sin(QUARTER * t)
        return Level(alpha, sigma, -QUARTER * sigma, QUARTER * alpha)

    def times(self, steps: int, spacing: str = 'uniform') -> list[float]:
        times = falling_times(steps, spacing)
        if self.shift == 1:
            return times
        return [math.atan2(self.shift * math.sin(QUARTER * t), math.sin(QUARTER * (1 - t))) / QUARTER for t in times]
