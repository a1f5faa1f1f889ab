"""Denoising diffusion implicit models."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Drive
from vq.registries import VQDiffusionSamplerRegistry
from vq.sampling.diffusion.stepping import estimate, intervals
from vq.sampling.posterior import transition


@VQDiffusionSamplerRegistry.register_('DDIM')
def ddim(z: Tensor, drive: Drive, *, steps: int = 50, spacing: str = 'uniform', eta: float = 0.0) -> Iterator[Tensor]:
    """z_s = alpha_s x0 + sqrt(sigma_s^2 - d^2) eps + d noise  (Song et al. 2021, eq. 12).

    d is ``eta`` times the deviation of q(z_s | z_t, x0): 0 adds no noise, 1 is ancestral sampling. ``spacing``: see ``times``
    of the path.
    """
    if not 0 <= eta <= 1:
        raise ConfigError(f'eta is {eta}', 'Give a number from 0, no noise, to 1, ancestral sampling.')
    for step, (here, there) in enumerate(intervals(drive, steps, spacing)):
        x0, eps = estimate(drive, z, here)
        _, spread = transition(here.level, there.level)
        deviation = eta * math.sqrt(float(spread)) * there.sigma / here.sigma
        z = there.alpha * x0 + math.sqrt(max(there.sigma**2 - deviation**2, 0.0)) * eps
        if deviation:
            z = z + deviation * drive.noise(step)
        z = drive.corrected(z, there.t)
        yield z
