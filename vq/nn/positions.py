"""Learned positions of square grids, resized to other grids."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

OFFSET = 0.1  # added to the number of patches, as in the published networks of DINO, DINOv2 and BEiT v2


def resize_positions(
    positions: Tensor, height: int, width: int, offset: float = OFFSET, antialias: bool = False, align_corners: bool = False
) -> Tensor:
    """Position embeddings (1, 1 + n * n, D), the class token's first -> (1, 1 + height * width, D).

    Bicubic, by default without antialiasing and by the factor (height + 0.1) / n and not height / n, as in published figures.
    """
    side = square_side(positions)
    if (side, side) == (height, width):
        return positions
    first, rest = positions[:, :1].float(), positions[:, 1:].float()
    plane = rest.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if offset:
        factors = (height + offset) / side, (width + offset) / side
        plane = F.interpolate(plane, scale_factor=factors, mode='bicubic', antialias=antialias)
    else:
        plane = F.interpolate(plane, (height, width), mode='bicubic', antialias=antialias, align_corners=align_corners)
    return torch.cat([first, plane.flatten(2).transpose(1, 2)], 1)  # from (1, D, height, width)


def square_side(positions: Tensor) -> int:
    """n of positions for n * n patches and a class token; 0 if they are not for a square."""
    side = round((positions.shape[1] - 1) ** 0.5)
    return side if side**2 + 1 == positions.shape[1] else 0
