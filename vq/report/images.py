"""The images that a report shows and measures: a split of the run's dataset, or evenly spaced images of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vq.core.errors import UserError
from vq.core.random import python_stream
from vq.data.decode import BadImage
from vq.interfaces import Dataset
from vq.registries import VQDatasetRegistry
from vq.report.facts import Pixels


@dataclasses.dataclass
class Images:
    """Images of a split, all of one size."""

    split: str
    total: int  # of the split
    ids: list[str]
    pixels: Pixels  # (N, H, W, 3)
    category: NDArray[np.int64] | None  # (N,)
    names: Sequence[str] = ()  # of the categories
    passed_over: int = 0  # images that are damaged, or of another size

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tensor(self) -> Tensor:
        """(N, 3, H, W) uint8."""
        return as_tensor(self.pixels)

    def name_of(self, row: int) -> str:
        """The category of an image in words; '' if there are no categories."""
        if self.category is None:
            return ''
        number = int(self.category[row])
        return self.names[number] if number < len(self.names) else str(number)

    def first(self, count: int) -> Images:
        """Evenly spaced images, ``count`` of them at most; the order stays."""
        return self.take(spaced(len(self), count))

    def take(self, rows: Sequence[int]) -> Images:
        category = None if self.category is None else self.category[list(rows)]
        ids = [self.ids[row] for row in rows]
        return dataclasses.replace(self, ids=ids, pixels=self.pixels[list(rows)], category=category)

    def choose(self, count: int, each: int = 3) -> list[int]:
        """Rows to show, at most ``count``, or any number if that is 0: the first ``each`` of every class, without selection.
        Evenly spaced ones if there are no classes, or more classes than fit."""
        present = 0 if self.category is None else len(np.unique(self.category))
        if self.category is None or 0 < count < present:
            return spaced(len(self), count or len(self))
        if count:
            each = max(1, min(each, count // present))
        return [int(row) for number in np.unique(self.category) for row in np.flatnonzero(self.category == number)[:each]]


def spaced(total: int, count: int) -> list[int]:
    """``count`` of the numbers below ``total``, evenly spaced; all of them if there are no more."""
    if total <= count:
        return list(range(total))
    return [int(place * total / count) for place in range(count)]


def open_split(described: Mapping[str, Any], split: str | None = None, where: str = 'dataset') -> Dataset:
    """A dataset of a config, of another split if ``split`` is given; the images of a dataset of tokens."""
    source = described.get('source')
    given = dict(source if isinstance(source, Mapping) else described)
    if split is not None and 'split' in given:
        given['split'] = split
    dataset: Dataset = VQDatasetRegistry.build(given, where)
    return dataset


def read_images(dataset: Dataset, most: int | None = None, size: tuple[int, int] | None = None) -> Images:
    """Evenly spaced images of a split, at most ``most``. Images that are damaged or not of ``size`` are passed over."""
    stream = python_stream('demo')
    total = len(dataset)
    ids, pixels, categories = [], [], []
    places = spaced(total, total if most is None else most)
    for index in places:
        try:
            sample = dataset.load(index, stream)
        except BadImage:
            continue
        image = sample['image']
        size = size or image.shape[:2]
        if image.shape[:2] != tuple(size):
            continue
        ids.append(str(sample['id']))
        pixels.append(image)
        categories.append(sample.get('category'))
    if not pixels:
        raise UserError(
            f'no image of {dataset.name}, split {dataset.split}, can be used', 'Look at the folder of the dataset.'
        )
    known = all(category is not None for category in categories)
    category = np.array(categories, np.int64) if known else None
    names = tuple(dataset.categories or ())
    return Images(dataset.split, total, ids, np.stack(pixels), category, names, len(places) - len(ids))


def as_tensor(images: Pixels) -> Tensor:
    """(N, H, W, 3) -> (N, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def as_pixels(images: Tensor) -> Pixels:
    """(N, 3, H, W) -> (N, H, W, 3)."""
    return np.ascontiguousarray(images.cpu().permute(0, 2, 3, 1).numpy())
