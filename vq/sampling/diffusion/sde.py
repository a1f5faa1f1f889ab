"""A stochastic differential equation with the marginals of the path, backwards in time."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Drive
from vq.registries import VQDiffusionSamplerRegistry
from vq.sampling.diffusion.stepping import estimate, intervals, mixed


@VQDiffusionSamplerRegistry.register_('SDE')
def sde(z: Tensor, drive: Drive, *, steps: int = 250, spacing: str = 'uniform', noise_scale: float = 1.0) -> Iterator[Tensor]:
    """dz = (velocity - w score / 2) dt + sqrt(w) dW,  w = noise_scale^2 d sigma^2 / dt,  by the method of Euler and Maruyama.

    z_t has the distribution of the path for every w (Song et al. 2021; Karras et al. 2022, eq. 8; Ma et al. 2024). Where alpha
    is 1, ``noise_scale`` 1 is the exact reverse of the noising; 0 is Euler's method on the ordinary equation. Noise removes
    errors of the steps before and makes some of its own. With this w, a step adds noise of variance
    noise_scale^2 (sigma_t^2 - sigma_s^2):  finite also where alpha is 0. The last step, to time 0, adds none.
    """
    if not noise_scale >= 0:
        raise ConfigError(f'noise_scale is {noise_scale}', 'Give 0 for no noise, 1 for that of the reverse process.')
    for step, (here, there) in enumerate(intervals(drive, steps, spacing)):
        x0, eps = estimate(drive, z, here)
        z = mixed(x0, eps, there)
        variance = noise_scale**2 * (here.sigma**2 - there.sigma**2)
        if variance > 0 and there.t > 0:
            z = z - variance / (2 * here.sigma) * eps + math.sqrt(variance) * drive.noise(step)  # score = -eps / sigma
        z = drive.corrected(z, there.t)
        yield z
