"""Euler's method on the ordinary differential equation of the path."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from vq.interfaces import Drive
from vq.registries import VQDiffusionSamplerRegistry
from vq.sampling.diffusion.stepping import estimate, intervals, mixed


@VQDiffusionSamplerRegistry.register_('Euler')
def euler(z: Tensor, drive: Drive, *, steps: int = 50, spacing: str = 'uniform') -> Iterator[Tensor]:
    """z_s = z_t + (alpha_s - alpha_t) x0 + (sigma_s - sigma_t) eps = alpha_s x0 + sigma_s eps.

    On the straight path this is  z_t + (s - t) velocity.  Without noise, DDIM is the same.
    """
    for here, there in intervals(drive, steps, spacing):
        x0, eps = estimate(drive, z, here)
        z = drive.corrected(mixed(x0, eps, there), there.t)
        yield z
