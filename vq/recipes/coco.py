"""COCO, whose datasets have options of their own: captions and maps."""

from __future__ import annotations

from typing import Annotated, Literal

from vq.core.recipe import Config, Given, merge, recipe
from vq.recipes.data import Known, datasets


@recipe(datasets, hides=('dataset', 'classes', 'held_out'))
def captioned(
    given: Given,
    known: Known,
    *,
    captions: Annotated[Literal['none', 'caption', 'caption_and_classes'], 'the text of a sample'] = 'caption',
    empty_text: Annotated[float, 'share of training images whose text is empty'] = 0.0,
) -> Config:
    """A dataset with several captions for each image, of which one is drawn."""
    known = known._replace(settings=dict(known.settings, captions=captions))
    # packed images have no such parameter
    return merge(datasets(given, known), dict(trainer=dict(dataset=dict(empty_text=empty_text) if empty_text else {})))


@recipe(captioned)
def coco(given: Given, year: int) -> Config:
    """COCO with captions."""
    return captioned(given, Known('COCODataset', 'data/coco', dict(year=year)))


@recipe(captioned)
def coco_stuff(given: Given, *, masks: Annotated[bool, 'maps of classes beside the boxes'] = False) -> Config:
    """The boxes of COCO-Stuff, and captions."""
    return captioned(given, Known('COCOStuffDataset', 'data/coco', dict(masks=masks), augmentation='layout'))
