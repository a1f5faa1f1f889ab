"""Ancestral sampling: the reverse process of denoising diffusion (DDPM)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, get_args

from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Drive
from vq.interfaces.denoisers import Number
from vq.registries import VQDiffusionSamplerRegistry
from vq.sampling.diffusion.stepping import intervals, predicted
from vq.sampling.posterior import reverse

Choice = Literal['small', 'large', 'learned']


@VQDiffusionSamplerRegistry.register_('Ancestral')
def ancestral(
    z: Tensor, drive: Drive, *, steps: int = 250, spacing: str = 'uniform', variance: Choice | None = None
) -> Iterator[Tensor]:
    """z_s = mean + deviation noise,  of the p(z_s | z_t) in ``posterior.py``  (Ho et al. 2020, algorithm 2).

    ``variance``: 'small', that of q(z_s | z_t, x0);  'large', that of q(z_t | z_s);  'learned', between the two as the network
    says (Nichol and Dhariwal 2021);  None: learned if the network has it, else small. The last step, to data, adds no noise.
    """
    if variance not in (None, *get_args(Choice)):
        raise ConfigError(f'variance is {variance!r}', "Give 'small', 'large', 'learned', or None for the network's choice.")
    for step, (here, there) in enumerate(intervals(drive, steps, spacing)):
        prediction = predicted(drive, z, here)
        if variance == 'learned' and prediction.variance is None:
            raise ConfigError(
                "variance is 'learned', and the network does not estimate any",
                "Set variance='small', or take a network with learned variances.",
            )
        if variance in ('small', 'large'):
            prediction = prediction._replace(variance=None)
        found = reverse(prediction, z, here.level, there.level, 'large' if variance == 'large' else 'small')
        z = found.mean
        if there.t > 0:
            z = z + _exp(found.log_variance / 2) * drive.noise(step)
        z = drive.corrected(z, there.t)
        yield z


def _exp(value: Number) -> Number:
    return value.exp() if isinstance(value, Tensor) else math.exp(value)
