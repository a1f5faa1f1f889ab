"""A folder of images, looked at completely: the result of listing and reading it, as arrays and as plain data."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vq.core.errors import UserError
from vq.data.survey.layout import Layout, better_root, lay_out
from vq.data.survey.listing import Listing, list_files
from vq.data.survey.reading import KINDS, Facts, inspect_all

IMAGE_SIZES = (32, 64, 96, 128, 256)
SIDES = (32, 64, 96, 128, 256, 512, 1024)  # limits of the histogram of short sides
NARROW = 3  # long side : short side, from which a centre crop loses most of an image
UNEVEN = 10  # images of the largest class : images of the smallest


@dataclasses.dataclass
class Survey:
    """Arrays have one entry for each image file, in the order of ``listing.images``."""

    given: Path
    root: Path  # the folder that was looked at
    moved: str  # why it is not the one given; '' if it is
    listing: Listing
    layout: Layout
    share: float  # held out for validation
    sizes: np.ndarray  # (count, 2) width and height; 0 of bad files
    bad: dict[str, str]  # path -> reason
    kinds: collections.Counter[str]
    copies: list[list[int]]  # groups of images with the same bytes
    lookalikes: list[list[int]]  # groups with the same pixels at a small size, in other files

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
        counts = collections.Counter(split for split, good in zip(self.layout.splits, self.good, strict=True) if good)
        return {split: counts[split] for split in ('train', 'validation', 'test') if counts[split]}

    def per_class(self) -> dict[str, dict[str, int]]:
        """Class -> split -> images that can be read."""
        found: dict[str, dict[str, int]] = {name: {} for name in self.layout.categories}
        if self.layout.labels is None:
            return found
        for label, split, good in zip(self.layout.labels, self.layout.splits, self.good, strict=True):
            if label >= 0 and good and split:
                counts = found[self.layout.categories[label]]
                counts[split] = counts.get(split, 0) + 1
        return found

    def leaks(self) -> list[list[int]]:
        """Groups of equal images that lie in more than one split."""
        splits = self.layout.splits
        return [group for group in (*self.copies, *self.lookalikes) if len({splits[index] for index in group} - {''}) > 1]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        names = self.listing.images

        def files(groups: list[list[int]]) -> list[list[str]]:
            return [[names[index] for index in group] for group in groups]

        width, height = (side[self.good] for side in self.sizes.T)
        return {
            'folder': str(self.given),
            'data_root': str(self.root),
            'why_another_root': self.moved or None,
            'layout': self.layout.kind,
            'images': int(self.good.sum()),
            'classes': self.per_class(),
            'splits': self.per_split(),
            'held_out': None if self.layout.kind == 'split folders' else self.share,
            'image_size': self.image_size,
            'short_sides': self.histogram(),
            'shapes': self.shapes(),
            'width': {'smallest': int(width.min()), 'median': float(np.median(width)), 'largest': int(width.max())},
            'height': {'smallest': int(height.min()), 'median': float(np.median(height)), 'largest': int(height.max())},
            'kinds': {kind: self.kinds[kind] for kind in KINDS if self.kinds[kind]},
            'bad': self.bad,
            'refused': self.listing.faults,
            'ignored': dict(self.listing.ignored.most_common()),
            'copies': files(self.copies),
            'same_pixels': files(self.lookalikes),
            'in_several_splits': files(self.leaks()),
            'warnings': self.layout.warnings,
        }


def survey(
    folder: Path,
    share: float,
    workers: int,
    progress: Callable[[int], Callable[[int], None]],
) -> Survey:
    """Look at a folder. ``progress(count)`` is called once, and gives the function that is told of finished images."""
    listing, moved = find_root(folder)
    facts = inspect_all(listing.root, listing.images, workers, progress(len(listing.images)))
    return gather(folder, listing.root, moved, listing, share, facts)


def find_root(folder: Path) -> tuple[Listing, str]:
    """The files of the folder that is meant, and why that is another one than ``folder``; '' if it is not."""
    given, moved, listing = folder, '', list_files(folder)
    for _ in range(3):  # images/train without validation: two steps
        better = better_root(folder, listing.images)
        if better is None:
            break
        folder, moved = better.root, f'{moved}{"; " if moved else ""}{better.why}'
        listing = list_files(folder)
    if not listing.images:
        there = ', '.join(f'{count} x {reason}' for reason, count in listing.ignored.most_common(5))
        faults = ', '.join(f'{path} ({reason})' for path, reason in list(listing.faults.items())[:3])
        raise UserError(
            f'{given} holds no image, only: {"; ".join(part for part in (there, faults) if part) or "nothing"}',
            'Give the folder that holds the images (png, jpg, jpeg, bmp, webp).',
        )
    return listing, moved


def gather(given: Path, root: Path, moved: str, listing: Listing, share: float, facts: Any) -> Survey:
    """Facts of all images, one after the other, into arrays: 40 bytes for each image, besides its path."""
    count = len(listing.images)
    sizes, bad = np.zeros((count, 2), np.int32), {}
    contents, pixels = (np.zeros(count, 'V16') for _ in range(2))
    kinds: collections.Counter[str] = collections.Counter()
    one: Facts
    for index, one in enumerate(facts):
        if one.reason:
            bad[listing.images[index]] = one.reason
            continue
        sizes[index] = one.width, one.height
        contents[index], pixels[index] = one.content, one.pixels
        kinds.update(one.kinds)
    layout = lay_out(root, listing.images, share)
    good = np.flatnonzero(sizes[:, 0])
    if not len(good):
        first = '; '.join(f'{path} {reason}' for path, reason in list(bad.items())[:3])
        raise UserError(f'none of the {count} images of {root} can be read: {first}', 'Look at these files.')
    copies = groups(contents, good)
    first_of = np.setdiff1d(good, [index for group in copies for index in group[1:]])
    return Survey(given, root, moved, listing, layout, share, sizes, bad, kinds, copies, groups(pixels, first_of))


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
