"""DPM-Solver++, of second order with two steps."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from vq.interfaces import Drive
from vq.registries import VQDiffusionSamplerRegistry
from vq.sampling.diffusion.stepping import At, estimate, intervals


@VQDiffusionSamplerRegistry.register_('DPMSolver')
def dpm_solver(z: Tensor, drive: Drive, *, steps: int = 20, spacing: str = 'uniform') -> Iterator[Tensor]:
    """DPM-Solver++(2M)  (Lu et al. 2022, algorithm 2).  With l = log(alpha / sigma), h = l_s - l_t, h' of the step before:

        d = (1 + h / 2 h') x0 - (h / 2 h') x0',    z_s = (sigma_s / sigma_t) z_t - alpha_s (exp(-h) - 1) d

    The first step and the last one, to sigma = 0, have h or h' infinite and take d = x0: DDIM's steps.
    """
    before: tuple[Tensor, float] | None = None  # x0 and h of the last step
    for here, there in intervals(drive, steps, spacing):
        x0, _ = estimate(drive, z, here)
        h = log_ratio(there) - log_ratio(here)
        data = x0
        if before is not None and there.sigma > 0:
            old, h_before = before
            weight = h / (2 * h_before)
            data = (1 + weight) * x0 - weight * old
        before = x0, h
        shrunk = there.sigma / here.sigma  # alpha_s exp(-h) = alpha_t sigma_s / sigma_t
        z = drive.corrected(shrunk * z + (there.alpha - here.alpha * shrunk) * data, there.t)
        yield z


def log_ratio(where: At) -> float:
    """log(alpha / sigma), infinite at the ends."""
    if where.alpha <= 0 or where.sigma <= 0:
        return -math.inf if where.alpha <= 0 else math.inf
    return math.log(where.alpha) - math.log(where.sigma)
