"""Base classes of image datasets: ``ImageDataset``, and ``FileDataset`` for image files."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from vq.data.decode import PIXEL_LIMIT, Backend, BadImage, decode_image, prepare_backend
from vq.data.names import Names
from vq.data.transforming import transformed
from vq.interfaces import Dataset, Sample
from vq.registries import VQTransformRegistry

Transform = Annotated[Callable[..., Any] | None, VQTransformRegistry]


class ImageDataset(Dataset):
    """Subclasses define ``read``, ``id_of`` and ``__len__``.

    If samples hold more than an image, ``annotations_of`` gives the rest. Fields that ``Sample`` does not list are declared in
    ``fields``. A method ``collate(samples) -> Batch`` takes the place of the default one.
    """

    def __init__(self, name: str, split: str, transform: Transform = None) -> None:
        self.name = name
        self.split = split
        self.transform = transform

    def read(self, index: int) -> np.ndarray:
        """The image before any transform, (H, W, 3) uint8 RGB. Can raise ``BadImage``."""
        raise NotImplementedError

    def category_of(self, index: int) -> int | None:
        return None

    def path_of(self, index: int) -> str | None:
        """The path of the image, for messages; None if the image is not a file."""
        return None

    def annotations_of(self, index: int) -> Mapping[str, Any]:
        """Further fields of a sample before any transform: boxes, mask, points, text, or declared ones."""
        return {}

    def load(self, index: int, stream: random.Random) -> Sample:
        name, path = self.id_of(index), self.path_of(index)
        sample = self.make_sample(
            image=self.read(index), id=name, category=self.category_of(index), path=path, **self.annotations_of(index)
        )
        if self.transform is None:
            return sample
        try:
            return transformed(self.transform, sample, stream)
        except BadImage as error:  # raised by a transform, which does not know the path
            raise BadImage(path or name, error.reason) from error

    @functools.cached_property
    def _digest(self) -> str:
        digest = hashlib.blake2b(f'{self.name}\n{self.split}\n'.encode(), digest_size=8)
        for index in range(len(self)):
            digest.update(f'{self.id_of(index)}\n'.encode())
        return digest.hexdigest()

    def fingerprint(self) -> str:
        return self._digest


@dataclasses.dataclass(frozen=True)
class FileIndex:
    """The files of a dataset."""

    paths: Names  # posix, relative to the root; also the ids of the samples
    labels: np.ndarray | None = None  # (count,) class numbers
    categories: tuple[str, ...] | None = None


class FileDataset(ImageDataset):
    """Image files below ``root``. They are listed at first use, never by the constructor, and opened one by one."""

    def __init__(
        self,
        root: str | Path,
        split: str,
        name: str,
        transform: Transform = None,
        backend: Backend = 'pillow',
        pixel_limit: int = PIXEL_LIMIT,
    ) -> None:
        super().__init__(name, split, transform)
        self.root = Path(root).expanduser()
        self.backend: Backend = backend
        self.pixel_limit = pixel_limit

    def find(self) -> FileIndex:
        """List the files; ``ConfigError`` if there are none."""
        raise NotImplementedError

    @functools.cached_property
    def index(self) -> FileIndex:
        prepare_backend(self.backend)
        return self.find()

    @functools.cached_property
    def categories(self) -> Sequence[str] | None:  # type: ignore[override]
        return self.index.categories

    def __len__(self) -> int:
        return len(self.index.paths)

    def id_of(self, index: int) -> str:
        return self.index.paths[index]

    def category_of(self, index: int) -> int | None:
        return None if self.index.labels is None else int(self.index.labels[index])

    def path_of(self, index: int) -> str:
        return str(self.root / self.index.paths[index])

    def read(self, index: int) -> np.ndarray:
        return decode_image(self.path_of(index), self.backend, self.pixel_limit)
