"""The held-out split of a folder without split folders: by a hash of each image's path, so that it is stable.

Whether an image is held out depends on its own path alone. Images that are added later, renamed or deleted move no other
image between the splits, and every machine has the same splits.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

PARTS = 10_000  # the resolution of a share


def place_of(path: str) -> int:
    """The place of a path in 0 .. PARTS - 1.

    ``path`` is relative to the root, with slashes. Unicode is normalised (NFC), since file systems store accents in two ways.
    """
    digest = hashlib.sha256(unicodedata.normalize('NFC', path).encode()).digest()
    return int.from_bytes(digest[:8], 'big') % PARTS


def is_held_out(path: str, share: float) -> bool:
    return place_of(path) < PARTS * share


def which_are_held_out(paths: Iterable[str], share: float) -> np.ndarray:
    """(count,) bool: whether each image belongs to 'validation'."""
    return np.fromiter((is_held_out(path, share) for path in paths), dtype=bool)


def share_for(paths: Sequence[str], count: int = 1) -> float | None:
    """The smallest share, in hundredths, that holds out at least ``count`` images and leaves one; None if there is none."""
    places = sorted(place_of(path) for path in paths)
    if len(places) <= count:
        return None
    share = -(-(places[count - 1] + 1) * 100 // PARTS) / 100
    return share if places[-1] >= PARTS * share else None
