"""What is known of images that were all read once, of a folder or of any dataset: sizes, faults, copies."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vq.data.survey.reading import KINDS, Facts

IMAGE_SIZES = (32, 64, 96, 128, 256)
SIDES = (32, 64, 96, 128, 256, 512, 1024)  # limits of the histogram of short sides
NARROW = 3  # long side : short side, from which a centre crop loses most of an image
UNEVEN = 10  # images of the largest class : images of the smallest


class Gathered(NamedTuple):
    """Arrays have one entry for each image, in the order of its facts."""

    sizes: np.ndarray  # (count, 2) width and height; 0 of bad images
    bad: dict[int, str]  # number of the image -> reason
    kinds: collections.Counter[str]
    copies: list[list[int]]  # groups of images with the same bytes
    lookalikes: list[list[int]]  # groups with the same pixels at a small size, in other files


class Surveyed:
    """Images, by number, with their names, splits and classes."""

    names: Sequence[str]
    splits: Sequence[str]
    labels: np.ndarray | None  # (count,) class numbers, -1 without one
    categories: Sequence[str]
    sizes: np.ndarray  # (count, 2) width and height; 0 of bad images
    bad: dict[str, str]  # name -> reason
    kinds: collections.Counter[str]
    copies: list[list[int]]
    lookalikes: list[list[int]]

    @property
    def good(self) -> np.ndarray:
        which: np.ndarray = self.sizes[:, 0] > 0
        return which

    @property
    def short_sides(self) -> np.ndarray:
        sides: np.ndarray = self.sizes[self.good].min(axis=1)
        return sides

    @property
    def image_size(self) -> int:
        """The largest usual size that at least half of the images have without being enlarged."""
        middle = np.median(self.short_sides)
        return max((size for size in IMAGE_SIZES if size <= middle), default=IMAGE_SIZES[0])

    def histogram(self) -> dict[str, int]:
        """Images by short side."""
        names = [f'below {SIDES[0]}', *(f'{low} to {high - 1}' for low, high in itertools.pairwise(SIDES))]
        places = np.searchsorted(SIDES, self.short_sides, side='right')
        counts = np.bincount(places, minlength=len(SIDES) + 1)
        return dict(zip([*names, f'{SIDES[-1]} and more'], counts.tolist(), strict=True))

    def shapes(self) -> dict[str, int]:
        width, height = self.sizes[self.good].T
        narrow = np.maximum(width, height) > NARROW * np.minimum(width, height)
        names = {'square': width == height, 'landscape': width > height, 'portrait': width < height}
        return {**{name: int(which.sum()) for name, which in names.items()}, 'long and narrow': int(narrow.sum())}

    def per_split(self) -> dict[str, int]:
        """Images that can be read, by split."""
        counts = collections.Counter(split for split, good in zip(self.splits, self.good, strict=True) if good)
        return {split: counts[split] for split in ('train', 'validation', 'test') if counts[split]}

    def per_class(self) -> dict[str, dict[str, int]]:
        """Class -> split -> images that can be read."""
        found: dict[str, dict[str, int]] = {name: {} for name in self.categories}
        if self.labels is None:
            return found
        for label, split, good in zip(self.labels, self.splits, self.good, strict=True):
            if label >= 0 and good and split:
                counts = found[self.categories[label]]
                counts[split] = counts.get(split, 0) + 1
        return found

    def leaks(self) -> list[list[int]]:
        """Groups of equal images that lie in more than one split."""
        splits = self.splits
        return [group for group in (*self.copies, *self.lookalikes) if len({splits[index] for index in group} - {''}) > 1]

    def plain_images(self) -> dict[str, Any]:
        """What holds of images alone, for JSON."""

        def named(groups: list[list[int]]) -> list[list[str]]:
            return [[self.names[index] for index in group] for group in groups]

        width, height = (side[self.good] for side in self.sizes.T)
        return {
            'images': int(self.good.sum()),
            'classes': self.per_class(),
            'splits': self.per_split(),
            'image_size': self.image_size,
            'short_sides': self.histogram(),
            'shapes': self.shapes(),
            'width': {'smallest': int(width.min()), 'median': float(np.median(width)), 'largest': int(width.max())},
            'height': {'smallest': int(height.min()), 'median': float(np.median(height)), 'largest': int(height.max())},
            'kinds': {kind: self.kinds[kind] for kind in KINDS if self.kinds[kind]},
            'bad': self.bad,
            'copies': named(self.copies),
            'same_pixels': named(self.lookalikes),
            'in_several_splits': named(self.leaks()),
        }


def gather(count: int, facts: Iterable[Facts]) -> Gathered:
    """Facts of ``count`` images, one after the other, into arrays: 40 bytes for each image."""
    sizes, bad = np.zeros((count, 2), np.int32), {}
    contents, pixels = (np.zeros(count, 'V16') for _ in range(2))
    kinds: collections.Counter[str] = collections.Counter()
    for index, one in enumerate(facts):
        if one.reason:
            bad[index] = one.reason
            continue
        sizes[index] = one.width, one.height
        contents[index], pixels[index] = one.content, one.pixels
        kinds.update(one.kinds)
    good = np.flatnonzero(sizes[:, 0])
    copies = groups(contents, good)
    first_of = np.setdiff1d(good, [index for group in copies for index in group[1:]])
    return Gathered(sizes, bad, kinds, copies, groups(pixels, first_of))


def groups(digests: np.ndarray, among: np.ndarray) -> list[list[int]]:
    """Indices with equal digests, as groups of at least two."""
    order = among[np.argsort(digests[among].view('S16'), kind='stable')] if len(among) else among
    found: list[list[int]] = []
    current: list[int] = []
    for index in order.tolist():
        if current and digests[index].tobytes() == digests[current[0]].tobytes():
            current.append(index)
            continue
        if len(current) > 1:
            found.append(sorted(current))
        current = [index]
    if len(current) > 1:
        found.append(sorted(current))
    return sorted(found)
