"""Datasets and their samples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any


class Sample(dict[str, Any]):
    """One sample of a dataset: ``image`` (H, W, 3) uint8 array, ``id``, and optionally category, text, path, extra."""


class Dataset:
    """A split of a collection of images. ``load`` can raise ``vq.data.decode.BadImage``."""

    name: str
    split: str
    categories: Sequence[str] | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def id_of(self, index: int) -> str:
        """Stable, unique, and known without opening the image."""
        raise NotImplementedError

    def load(self, index: int, stream: random.Random) -> Sample:
        """The transformed sample; every random choice is drawn from ``stream``."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """A short digest of the contents of the split: it changes if files are added, removed or renamed."""
        raise NotImplementedError
