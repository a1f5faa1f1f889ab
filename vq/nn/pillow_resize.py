"""Bicubic resizing of 8-bit images on tensors, as in Pillow: the first step of the recipes of CLIP and DINOv2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_like_pillow(image: Tensor, height: int, width: int) -> Tensor:
    """uint8 (B, C, H, W) -> uint8 (B, C, height, width): antialiased, first rows and then columns, 8 bits in between.

    Equal to Pillow except at ties of Pillow's fixed-point weights, where single values are one level off.
    """
    for size in ((image.shape[-2], width), (height, width)):
        if image.shape[-2:] != size:
            resized = F.interpolate(image.float(), size, mode='bicubic', antialias=True, align_corners=False)
            image = resized.round_().clamp_(0, 255).to(torch.uint8)
    return image


def crop_centre(image: Tensor) -> Tensor:
    """(B, C, H, W) -> the largest square in the centre."""
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[..., top : top + side, left : left + side]
