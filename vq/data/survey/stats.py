"""Mean and deviation of the pixels of a dataset, exactly: whole numbers are added, and divided once at the end."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from vq.core.random import python_stream
from vq.data.decode import BadImage
from vq.data.transforming import transformed
from vq.interfaces import Dataset, Sample

LEVELS = 256
SCALES = {  # v -> factor * v + offset
    'uint8': (Fraction(1), 0),
    '0..1': (Fraction(1, 255), 0),
    '-1..1': (Fraction(2, 255), -1),
}


class Look(NamedTuple):
    """How images are looked at. ``transform``: of validation, for a split that has another one; None: the images as stored.

    ``own``: the transform of the dataset itself.
    """

    dataset: Dataset
    transform: Any = None
    own: bool = False


class Counted(NamedTuple):
    """One image. ``reason``: why it is bad, then there is no histogram (3, 256)."""

    reason: str
    category: int | None
    histogram: np.ndarray | None


def look_at(look: Look, index: int) -> Counted:
    """How often each of the 256 values is in each channel of an image."""
    try:
        sample = look.dataset.original(index)
    except BadImage as error:
        return Counted(error.reason, None, None)
    return count(look, index, sample)


def count(look: Look, index: int, sample: Sample) -> Counted:
    """``sample``: before any transform."""
    stream = python_stream('stats', index)
    try:
        if look.own:
            sample = look.dataset.load(index, stream)
        elif look.transform is not None:
            sample = transformed(look.transform, sample, stream)
    except BadImage as error:
        return Counted(error.reason, None, None)
    pixels = sample['image'].reshape(-1, 3)  # (H, W, 3) uint8
    histogram = np.stack([np.bincount(pixels[:, channel], minlength=LEVELS) for channel in range(3)])
    category = sample.get('category')
    return Counted('', None if category is None else int(category), histogram)


@dataclasses.dataclass
class Stats:
    """Of one split. ``histogram``: (3, 256) int64, pixels of each value in each channel."""

    images: int
    bad: dict[str, str]  # id -> reason
    categories: dict[int, int]  # class number -> images; empty without classes
    histogram: np.ndarray

    @property
    def pixels(self) -> int:
        return int(self.histogram[0].sum())

    def moments(self, scale: str) -> tuple[list[float], list[float]]:
        """Mean and standard deviation (over all pixels) of each channel, for values in ``scale``."""
        factor, offset = SCALES[scale]
        means, deviations = [], []
        for row in self.histogram.tolist():
            total = sum(row)
            first = sum(value * times for value, times in enumerate(row))
            second = sum(value * value * times for value, times in enumerate(row))
            means.append(float(factor * Fraction(first, total) + offset))
            deviations.append(math.sqrt(factor * factor * Fraction(second * total - first * first, total * total)))
        return means, deviations

    def plain(self, names: Any = None) -> dict[str, Any]:
        """For JSON. ``names``: of the classes."""
        found: dict[str, Any] = {'images': self.images, 'pixels': self.pixels, 'bad': self.bad}
        for scale in SCALES:
            found[scale] = dict(zip(('mean', 'std'), self.moments(scale), strict=True))
        found['histogram'] = self.histogram.tolist()
        if self.categories:
            found['classes'] = {
                str(names[number] if names and number < len(names) else number): times
                for number, times in sorted(self.categories.items())
            }
        return found


def nothing() -> Stats:
    return Stats(0, {}, {}, np.zeros((3, LEVELS), np.int64))


def add(stats: Stats, name: str, one: Counted) -> None:
    """``name``: the id of the sample."""
    if one.histogram is None:
        stats.bad[name] = one.reason
        return
    stats.images += 1
    stats.histogram += one.histogram
    if one.category is not None:
        stats.categories[one.category] = stats.categories.get(one.category, 0) + 1


def gather(dataset: Dataset, counted: Iterable[Counted]) -> Stats:
    """``counted``: of all indices, in order."""
    stats = nothing()
    for index, one in enumerate(counted):
        add(stats, dataset.id_of(index), one)
    return stats
