"""A folder of images, looked at completely: the result of listing and reading it, as arrays and as plain data."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vq.core.errors import UserError
from vq.data.survey.layout import Layout, better_root, lay_out
from vq.data.survey.listing import Listing, list_files
from vq.data.survey.reading import inspect_all
from vq.data.survey.surveyed import Surveyed, gather


@dataclasses.dataclass
class Survey(Surveyed):
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
    def names(self) -> list[str]:  # type: ignore[override]
        return self.listing.images

    @property
    def splits(self) -> list[str]:  # type: ignore[override]
        return self.layout.splits

    @property
    def labels(self) -> np.ndarray | None:  # type: ignore[override]
        return self.layout.labels

    @property
    def categories(self) -> Sequence[str]:  # type: ignore[override]
        return self.layout.categories

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'folder': str(self.given),
            'data_root': str(self.root),
            'why_another_root': self.moved or None,
            'layout': self.layout.kind,
            'held_out': None if self.layout.kind == 'split folders' else self.share,
            'refused': self.listing.faults,
            'ignored': dict(self.listing.ignored.most_common()),
            'warnings': self.layout.warnings,
            **self.plain_images(),
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
    found = gather(len(listing.images), facts)
    bad = {listing.images[index]: reason for index, reason in found.bad.items()}
    if len(bad) == len(listing.images):
        first = '; '.join(f'{path} {reason}' for path, reason in list(bad.items())[:3])
        raise UserError(f'none of the {len(bad)} images of {listing.root} can be read: {first}', 'Look at these files.')
    layout = lay_out(listing.root, listing.images, share)
    return Survey(folder, listing.root, moved, listing, layout, share, **{**found._asdict(), 'bad': bad})


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
