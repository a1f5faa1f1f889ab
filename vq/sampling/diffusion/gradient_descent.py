"""Drawing from a field without time: descent to where it vanishes, by any optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Drive
from vq.registries import VQDiffusionSamplerRegistry, VQOptimizerRegistry

Optimizer = Annotated[Callable[..., Any], VQOptimizerRegistry]


@VQDiffusionSamplerRegistry.register_('GradientDescent')
def gradient_descent(
    z: Tensor, drive: Drive, *, steps: int = 250, size: float = 0.012, optimizer: Optimizer | None = None
) -> Iterator[Tensor]:
    """z <- z - size f(z) / scale,  or a step of ``optimizer`` with that gradient, e.g. SGD with momentum (EqM, 2025).

    For denoisers without time, such as ``Equilibrium``. The published step 0.003 of a field of scale 4 is a ``size`` of 0.012.
    An ``optimizer`` has a learning rate of its own, and sees all rows as one tensor: take one that works number by number.
    """
    if not drive.timeless:
        raise ConfigError(
            'GradientDescent needs a field without time, and this denoiser is told the time',
            "Wrap it: denoiser=dict(type='Equilibrium', denoiser=...), or take another sampler.",
        )
    if steps < 1 or not size > 0:
        raise ConfigError(f'{steps} steps of size {size}', 'Give 1 step or more, and a size above 0.')
    with torch.inference_mode(False):  # optimizers change their parameters in place
        place = torch.nn.Parameter(z.detach().clone().float())
        made = None if optimizer is None else optimizer([{'params': [place]}], False)
    for step in range(steps):
        estimate = drive.denoise(place.data, 1.0, drive.condition).value
        with torch.inference_mode(False), torch.no_grad():
            gradient = estimate.to(place.dtype).clone()
            if made is None:
                place.data = place.data - size * gradient
            else:
                place.grad = gradient
                made.step()
            place.data = drive.corrected(place.data, 0.0 if step == steps - 1 else 1.0)
        yield place.data.clone()
