"""Crops of boxes: what a classifier or a feature network is shown of a layout."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def crops_of(images: Tensor, boxes: Tensor, there: Tensor, size: int, keep_shape: bool = False) -> Tensor:
    """Images (B, 3, H, W) uint8 and boxes (B, M, 4) x1, y1, x2, y2 in pixels -> (R, 3, S, S) uint8.

    A row for each box that is ``there`` (B, M), image by image. Corners are rounded outwards, to whole pixels, and cut to the
    image; a crop has 1 pixel or more. It is resized to ``size``, bilinear with antialiasing. ``keep_shape``: its longer side
    is, and black fills the rest at both sides of the shorter one.
    """
    found = []
    height, width = images.shape[2:]
    for image, corners, kept in zip(images, boxes.float().cpu(), there.cpu(), strict=True):
        for left, top, right, bottom in corners[kept].tolist():
            x1, y1 = min(max(int(left), 0), width - 1), min(max(int(top), 0), height - 1)
            x2, y2 = max(min(-int(-right // 1), width), x1 + 1), max(min(-int(-bottom // 1), height), y1 + 1)
            found.append(_resized(image[:, y1:y2, x1:x2], size, keep_shape))
    return torch.stack(found) if found else images.new_zeros(0, 3, size, size)


def _resized(crop: Tensor, size: int, keep_shape: bool) -> Tensor:
    height, width = crop.shape[1:]
    longer = max(height, width)
    shape = (size, size)
    if keep_shape:
        shape = max(1, round(size * height / longer)), max(1, round(size * width / longer))
    resized = (
        F.interpolate(crop[None].float(), shape, mode='bilinear', antialias=True)[0].round().clamp(0, 255).to(torch.uint8)
    )
    below, aside = size - shape[0], size - shape[1]
    return F.pad(resized, (aside // 2, aside - aside // 2, below // 2, below - below // 2))
