"""Diversity: how far images of one layout are from each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.core.records import to_float

# Two sets of images (B, 3, H, W) float in [-1, 1] -> the distance of each pair (B,): ``LPIPSLoss(net='alex').distance``
Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
PAIRS = 16  # that the distance sees at once


class Diversity(NamedTuple):
    mean: float  # over layouts
    deviation: float  # over layouts, divided by their number
    layouts: int
    samples: int  # images of each


@torch.no_grad()
def diversity(drawn: Iterable[Tensor], distance: Distance) -> Diversity:
    """The mean distance of all pairs of images of one layout, over layouts. drawn: (K, 3, H, W) uint8 of each layout, K >= 2.

    The distance of papers is LPIPS of AlexNet, of 2 images of each layout.
    """
    means, samples = [], set[int]()
    for images in drawn:
        samples.add(len(images))
        if len(images) < 2:
            raise UserError(
                f'a layout has {len(images)} image, and diversity compares images of one layout',
                'Draw 2 or more of each: --protocol layouts-NxK with a larger K.',
            )
        shown = to_float(images)
        pairs = torch.split(torch.combinations(torch.arange(len(images))), PAIRS)
        found = torch.cat([distance(shown[part[:, 0]], shown[part[:, 1]]).double().cpu() for part in pairs])
        means.append(found.mean())
    if len(samples) != 1:
        raise UserError(f'layouts have {sorted(samples) or "no"} images', 'Give as many images of every layout, and a layout.')
    values = torch.stack(means)
    return Diversity(float(values.mean()), float(values.std(correction=0)), len(values), samples.pop())
