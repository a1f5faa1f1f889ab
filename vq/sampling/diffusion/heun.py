"""Heun's method: the trapezoidal rule, with a step of Euler's method as a trial."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from vq.interfaces import Drive
from vq.registries import VQDiffusionSamplerRegistry
from vq.sampling.diffusion.stepping import estimate, intervals, mixed


@VQDiffusionSamplerRegistry.register_('Heun')
def heun(z: Tensor, drive: Drive, *, steps: int = 25, spacing: str = 'uniform') -> Iterator[Tensor]:
    """z' = alpha_s x0 + sigma_s eps,  z_s = z_t + (alpha_s - alpha_t) (x0 + x0') / 2 + (sigma_s - sigma_t) (eps + eps') / 2.

    x0' and eps' are the estimates at z'. On the straight path, this averages two velocities. With alpha = 1 it is algorithm 1
    of Karras et al. (2022). As there, the last step, to time 0, is Euler's: 2 steps - 1 evaluations in all.
    """
    for here, there in intervals(drive, steps, spacing):
        x0, eps = estimate(drive, z, here)
        trial = mixed(x0, eps, there)
        if there.t > 0:
            x0_trial, eps_trial = estimate(drive, trial, there)
            by_alpha, by_sigma = (there.alpha - here.alpha) / 2, (there.sigma - here.sigma) / 2
            trial = z + by_alpha * (x0 + x0_trial) + by_sigma * (eps + eps_trial)
        z = drive.corrected(trial, there.t)
        yield z
