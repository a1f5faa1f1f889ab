"""Figures of a folder of ``vq.sample --protocol``: FID, SceneFID, and the diversity of images of one layout.

All K images of each of N layouts are compared with the N true images, as papers do: 15,485 with 3,097.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from vq.core.errors import UserError
from vq.data.protocol_folder import DrawnLayouts
from vq.interfaces import FeatureNetwork
from vq.metrics.crops import crops_of
from vq.metrics.diversity import Distance, Diversity, diversity
from vq.metrics.features.blocks import Blocks
from vq.metrics.features.frechet import frechet_distance
from vq.metrics.features.statistics import Moments
from vq.metrics.features.store import FeatureStore
from vq.metrics.scenes import SIDE


def fid_of(drawn: DrawnLayouts, network: FeatureNetwork) -> float:
    numbers = range(drawn.layouts)
    made, real = (drawn.drawn(number) for number in numbers), (drawn.true(number)[None] for number in numbers)
    return frechet_distance(moments_of(network, made), moments_of(network, real)).value


def scene_fid_of(drawn: DrawnLayouts, network: FeatureNetwork, size: int = SIDE, shape: bool = False) -> float:
    """The Frechet distance of the crops of all boxes, at ``size`` pixels a side. ``shape``: crops keep theirs."""

    def crops(true: bool) -> Iterator[Tensor]:
        for number in range(drawn.layouts):
            images, layout = drawn.true(number)[None] if true else drawn.drawn(number), drawn.layout(number)
            layout = layout.taken([0] * len(images))
            assert layout.boxes is not None and layout.boxes_mask is not None
            yield crops_of(images, layout.boxes, layout.boxes_mask, size, shape)

    return frechet_distance(moments_of(network, crops(False)), moments_of(network, crops(True))).value


def diversity_of(drawn: DrawnLayouts, distance: Distance, device: torch.device | str = 'cpu') -> Diversity:
    """The mean distance of images of one layout; see ``diversity``."""
    return diversity((drawn.drawn(number).to(device) for number in range(drawn.layouts)), distance)


@torch.no_grad()
def moments_of(network: FeatureNetwork, parts: Iterable[Tensor]) -> Moments:
    """Of the features of all images (n, 3, H, W) uint8 in ``parts``, in memory that does not depend on their number."""
    store = FeatureStore(('pooled',))
    blocks, device, count = Blocks(network, store), device_of(network), 0
    for images in parts:
        blocks.add(torch.arange(count, count + len(images)), images.to(device))
        count += len(images)
    if count < 2:
        raise UserError(f'there are {count} images or crops, and a Frechet distance needs 2 or more', 'Draw more layouts.')
    blocks.finish()
    return store.finish().moments['pooled']


def device_of(network: nn.Module) -> torch.device:
    return next((parameter.device for parameter in network.parameters()), torch.device('cpu'))
