"""A step size from the curvature of an energy."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces.denoisers import Number
from vq.sampling.descent import Evaluate, gradient_of
from vq.sampling.predictions import spread

LENGTH = 1e-2  # of the difference, per number of z: far above the rounding of fp32 gradients, far below the noise in z


def largest_curvature(evaluate: Evaluate, z: Tensor, start: Tensor, steps: int = 3) -> Tensor:
    """(B,) |v^T H v| after ``steps`` power iterations  v <- H v / |H v|  from ``start``, H the second derivative of each
    row's energy by z (B, C, *cells).

    H v is a difference of gradients, (g(z + h v) - g(z)) / h, so that no second derivative is taken: it goes for guided
    energies, and where a denoiser keeps no graph.
    """
    if steps < 1:
        raise ConfigError(f'{steps} power iterations', 'Give 1 or more.')
    gradient = gradient_of(evaluate(z))
    h = LENGTH * z[0].numel() ** 0.5
    v, curvature = _unit(start.to(z)), z.new_zeros(len(z))
    for _ in range(steps):
        turned = (gradient_of(evaluate(z + h * v)) - gradient) / h
        curvature = (v * turned).flatten(1).sum(1)
        v = _unit(turned)
    return curvature.abs()


def step_from_curvature(
    evaluate: Evaluate, z: Tensor, start: Tensor, scale: float, steps: int = 3, most: Number = 1.0
) -> Tensor:
    """(B,)  scale / largest curvature, at most ``most``: with a scale below 2, a step does not go up the other side of the
    narrowest valley."""
    found = scale / largest_curvature(evaluate, z, start, steps).clamp(min=torch.finfo(torch.float32).tiny)
    return torch.minimum(found, torch.as_tensor(most, device=z.device).to(found))


def _unit(v: Tensor) -> Tensor:
    norm = v.flatten(1).norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    return v / spread(norm, v)
