"""From maps of labels to boxes: the regions of connected pixels of a label."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 12  # pixels of a region; smaller ones are specks


class Regions(NamedTuple):
    """The regions of an image, from its top to its bottom."""

    boxes: Tensor  # (R, 4) int64: x1, y1, x2, y2 in pixels, around all pixels of a region
    categories: Tensor  # (R,) int64


def components(inside: Tensor) -> Tensor:
    """(B, H, W) bool -> (B, H, W) int64: 0 outside; inside a number for each set of pixels that touch, also at corners.

    The number is 1 + the last place (row by row) of the set. The largest number spreads from pixel to pixel until nothing
    changes: as many rounds as the longest way within a set has pixels. fp32 holds the places of up to 4096 x 4096 pixels.
    """
    height, width = inside.shape[1:]
    places = torch.arange(1, height * width + 1, device=inside.device, dtype=torch.float32).view(1, height, width)
    numbers = places * inside
    while True:
        spread = F.max_pool2d(numbers[:, None], 3, stride=1, padding=1)[:, 0] * inside
        if torch.equal(spread, numbers):
            return numbers.long()
        numbers = spread


def regions_of(labels: Tensor, classes: int, smallest: int = SMALLEST) -> list[Regions]:
    """Labels (B, H, W) int64, of which those below ``classes`` are something -> the regions of each image.

    A region is a set of pixels that are something and touch; its category is the one that most of them have. So a few wrong
    labels within a thing do not part it. Regions of fewer than ``smallest`` pixels are left out.
    """
    return [_regions(*found, classes, smallest) for found in zip(labels, components(labels < classes), strict=True)]


def _regions(labels: Tensor, numbers: Tensor, classes: int, smallest: int) -> Regions:
    rows, columns = numbers.nonzero(as_tuple=True)
    _, place = torch.unique(numbers[rows, columns], return_inverse=True)  # (P,), the region of each pixel
    count = int(place.max()) + 1 if len(place) else 0
    votes = torch.zeros(count, classes, dtype=torch.int64, device=labels.device)
    votes.index_put_((place, labels[rows, columns]), torch.ones_like(place), accumulate=True)
    low, high = (torch.zeros(count, 2, dtype=torch.int64, device=labels.device) for _ in range(2))
    corners = torch.stack([columns, rows], 1)
    where = place[:, None].expand(-1, 2)
    low.scatter_reduce_(0, where, corners, 'amin', include_self=False)
    high.scatter_reduce_(0, where, corners + 1, 'amax', include_self=False)
    kept = votes.sum(1) >= smallest
    boxes, categories = torch.cat([low, high], 1)[kept], votes.argmax(1)[kept]
    order = torch.argsort(boxes[:, 1] * labels.shape[1] + boxes[:, 0], stable=True)
    return Regions(boxes[order], categories[order])
