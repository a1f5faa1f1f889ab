"""Gradient estimators: how the gradient at a code reaches its feature. The value is always bitwise the code."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import ConfigError

Gradient = Literal['straight_through', 'rotation']

SHORTEST = 1e-6  # shorter vectors are taken as this long


def straight_through(x: Tensor, codes: Tensor) -> Tensor:
    """z = c with dz/dx = 1 (Bengio et al. 2013). x - sg(x) is exactly zero, so z is not rounded."""
    return codes.detach() + (x - x.detach())


def rotation(x: Tensor, codes: Tensor) -> Tensor:
    """z = c with dz/dx = (|c| / |x|) R, the rotation R = 1 - 2 w w' + 2 c^ x^' that turns x to c, held constant.

    (Fifty et al. 2024.) x^ and c^ are x and c at unit length, w is x^ + c^ at unit length. The gradient has the same angle
    to x as it had to c; straight-through keeps its direction instead.
    """
    x_length = x.detach().norm(dim=-1, keepdim=True).clamp_min(SHORTEST)
    c_length = codes.detach().norm(dim=-1, keepdim=True)
    x_unit, c_unit = x.detach() / x_length, codes.detach() / c_length.clamp_min(SHORTEST)  # (..., C)
    w = F.normalize(x_unit + c_unit, dim=-1, eps=SHORTEST)
    turned = x - 2 * w * (x * w).sum(-1, keepdim=True) + 2 * c_unit * (x * x_unit).sum(-1, keepdim=True)
    return straight_through(turned * (c_length / x_length), codes)


def pass_gradient(x: Tensor, codes: Tensor, gradient: Gradient) -> Tensor:
    """Features and their codes (..., C) -> the codes z, through which the gradient reaches the features."""
    return rotation(x, codes) if gradient == 'rotation' else straight_through(x, codes)


def check_gradient(gradient: str) -> Gradient:
    if gradient not in ('straight_through', 'rotation'):
        raise ConfigError(f"gradient is '{gradient}'", "It is 'straight_through' or 'rotation'.")
    return 'rotation' if gradient == 'rotation' else 'straight_through'
