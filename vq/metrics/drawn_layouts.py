"""Figures of a folder of ``vq.sample --protocol``: FID, SceneFID, CAS, diversity, and means over boxes.

All K images of each of N layouts are compared with the N true images, as papers do: 15,485 with 3,097.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from vq.core.conditions import Condition
from vq.core.errors import UserError
from vq.data.protocol_folder import DrawnLayouts
from vq.interfaces import FeatureNetwork
from vq.metrics.crops import crops_of
from vq.metrics.diversity import Distance, Diversity, diversity
from vq.metrics.features.blocks import Blocks
from vq.metrics.features.frechet import frechet_distance
from vq.metrics.features.statistics import Moments
from vq.metrics.features.store import FeatureStore
from vq.metrics.scenes import SIDE, classification_accuracy_score, crop_features


def fid_of(drawn: DrawnLayouts, network: FeatureNetwork) -> float:
    numbers = range(drawn.layouts)
    made, real = (drawn.drawn(number) for number in numbers), (drawn.true(number)[None] for number in numbers)
    return frechet_distance(moments_of(network, made), moments_of(network, real)).value


def scene_fid_of(drawn: DrawnLayouts, network: FeatureNetwork, size: int = SIDE, shape: bool = False) -> float:
    """The Frechet distance of the crops of all boxes, at ``size`` pixels a side. ``shape``: crops keep theirs."""

    def crops(true: bool) -> Iterator[Tensor]:
        for _, images, layout in _sides(drawn, (int(true),)):
            assert layout.boxes is not None and layout.boxes_mask is not None
            yield crops_of(images, layout.boxes, layout.boxes_mask, size, shape)

    return frechet_distance(moments_of(network, crops(False)), moments_of(network, crops(True))).value


def diversity_of(drawn: DrawnLayouts, distance: Distance, device: torch.device | str = 'cpu') -> Diversity:
    """The mean distance of images of one layout; see ``diversity``."""
    return diversity((drawn.drawn(number).to(device) for number in range(drawn.layouts)), distance)


def cas_of(drawn: DrawnLayouts, network: FeatureNetwork, size: int = SIDE, shape: bool = False) -> float:
    """CAS of all drawn and all true crops. Their features are kept in memory: of 15,485 images with 6 boxes each 0.8 GB."""
    both: tuple[list[Tensor], list[Tensor]] = [], []  # features of drawn crops, and of true ones
    asked: tuple[list[Tensor], list[Tensor]] = [], []  # and their classes
    device = device_of(network)
    for side, images, layout in _sides(drawn):
        assert layout.box_categories is not None and layout.boxes_mask is not None
        if bool(layout.boxes_mask.any()):
            both[side].append(crop_features(network, images.to(device), layout, size, shape).cpu())
            asked[side].append(layout.box_categories[layout.boxes_mask])
    if not both[0]:
        raise UserError(f'no layout of {drawn.folder} has a box', 'Draw layouts with boxes.')
    made, real = (torch.cat(parts) for parts in both)
    wanted, true = (torch.cat(parts) for parts in asked)
    return classification_accuracy_score(made, wanted, real, true, len(drawn.names) or 1 + int(true.max()))


def over_boxes(drawn: DrawnLayouts, measure: Callable[[Tensor, Condition], Tensor]) -> tuple[float, float]:
    """The mean over boxes of a number of each, in drawn images and in true ones. ``measure``: images (n, 3, H, W) uint8 and
    their n layouts -> (R,), a number for each box."""
    found: tuple[list[Tensor], list[Tensor]] = [], []
    for side, images, layout in _sides(drawn):
        found[side].append(measure(images, layout).double().cpu())
    made, true = (float(torch.cat(values).mean()) for values in found)
    return made, true


@torch.no_grad()
def assigned(classifier: FeatureNetwork, images: Tensor, layout: Condition, size: int) -> Tensor:
    """(R,) bool, for each box whether a classifier assigns its crop to the class asked for. Crops keep their shape."""
    assert layout.boxes is not None and layout.boxes_mask is not None and layout.box_categories is not None
    crops, wanted = crops_of(images, layout.boxes, layout.boxes_mask, size, True), layout.box_categories[layout.boxes_mask]
    if not len(crops):
        return torch.zeros(0, dtype=torch.bool)
    logits = classifier(crops.to(device_of(classifier))).logits
    if logits is None or int(wanted.max()) >= logits.shape[1]:
        known = 'no classes' if logits is None else f'{logits.shape[1]} classes'
        raise UserError(
            f'a box is of class {int(wanted.max())}, and the classifier knows {known}',
            'Give a classifier of the classes of the layouts.',
        )
    right: Tensor = logits.argmax(1).cpu() == wanted.cpu()
    return right


def _sides(drawn: DrawnLayouts, sides: tuple[int, ...] = (0, 1)) -> Iterator[tuple[int, Tensor, Condition]]:
    """Of each layout: 0, its drawn images, and the layout of each; then 1, its true image, and its layout."""
    for number in range(drawn.layouts):
        layout = drawn.layout(number)
        for side in sides:
            images = drawn.true(number)[None] if side else drawn.drawn(number)
            yield side, images, layout.taken([0] * len(images))


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
