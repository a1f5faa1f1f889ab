"""Pseudo linear multistep: the noise of earlier steps, extrapolated."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from torch import Tensor

from vq.interfaces import Drive
from vq.registries import VQDiffusionSamplerRegistry
from vq.sampling.diffusion.stepping import estimate, intervals, mixed

# Adams and Bashforth: weights of the estimates of 1 to 4 steps, the newest first
ADAMS_BASHFORTH = [(1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24)]
LITTLE_DATA = 1e-3


@VQDiffusionSamplerRegistry.register_('PLMS')
def plms(z: Tensor, drive: Drive, *, steps: int = 50, spacing: str = 'uniform') -> Iterator[Tensor]:
    """e = sum_i w_i eps_i over the last estimates,  z_s = alpha_s (z_t - sigma_t e) / alpha_t + sigma_s e  (Liu et al. 2022,
    as in latent diffusion).

    Step 1 averages the noise at z_t and that at the end of a trial step: two evaluations. Steps 2, 3 and 4 extrapolate with 2,
    3 and 4 estimates. Any kind of prediction goes, as x0 and eps are what is used of it.

    Paths whose alpha is 0 at t = 1, or below 0.001, have no useful (z_t - sigma_t e) / alpha_t. On these, x0 is extrapolated
    like the noise:  z_s = z_t + (alpha_s - alpha_t) x + (sigma_s - sigma_t) e,  x = sum_i w_i x0_i.
    """
    earlier: deque[tuple[Tensor, ...]] = deque(maxlen=4)  # what is extrapolated, the newest first: (x0, eps) or (eps,)
    both = False
    for step, (here, there) in enumerate(intervals(drive, steps, spacing)):
        both = both or here.alpha < LITTLE_DATA
        found = estimate(drive, z, here)
        earlier.appendleft(found if both else found[1:])
        used, weights = list(earlier), ADAMS_BASHFORTH[len(earlier) - 1]
        if step == 0 and there.t > 0:
            trial = estimate(drive, mixed(*found, there), there)
            used.append(trial if both else trial[1:])
            weights = (1 / 2, 1 / 2)
        *data, noise = (weighted(weights, estimates) for estimates in zip(*used, strict=True))
        if data:
            z = z + (there.alpha - here.alpha) * data[0] + (there.sigma - here.sigma) * noise
        else:
            ratio = there.alpha / here.alpha
            z = ratio * z + (there.sigma - ratio * here.sigma) * noise
        z = drive.corrected(z, there.t)
        yield z


def weighted(weights: Sequence[float], estimates: Sequence[Tensor]) -> Tensor:
    first, *rest = (weight * found for weight, found in zip(weights, estimates, strict=True))
    return sum(rest, start=first)
