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

from vq.core.errors import ConfigError
from vq.data.decode import (
    PIXEL_LIMIT,
    Backend,
    BadImage,
    decode_image,
    file_bytes,
    prepare_backend,
    size_of_file,
)
from vq.data.names import Names
from vq.data.pixels import Resampler, check_resampler, resampled_by
from vq.data.remote_root import place
from vq.data.transforming import transformed
from vq.interfaces import Dataset, Sample
from vq.registries import VQTransformRegistry

Transform = Annotated[Callable[..., Any] | None, VQTransformRegistry]


class ImageDataset(Dataset):
    """Subclasses define ``read``, ``id_of`` and ``__len__``.

    If samples hold more than an image, ``annotations_of`` gives the rest. Fields that ``Sample`` does not list are declared in
    ``fields``. A method ``collate(samples) -> Batch`` takes the place of the default one.
    """

    resampler: Resampler = 'pillow'  # what transforms resize with

    def __init__(self, name: str, split: str, transform: Transform = None) -> None:
        self.name = name
        self.split = split
        self.transform = transform

    def read(self, index: int) -> np.ndarray:
        """The image before any transform, (H, W, 3) uint8 RGB. Can raise ``BadImage``."""
        raise NotImplementedError

    def category_of(self, index: int) -> int | None:
        return None

    def annotations_of(self, index: int) -> Mapping[str, Any]:
        """Further fields of a sample before any transform: boxes, mask, points, text, or declared ones."""
        return {}

    def original(self, index: int) -> Sample:
        return self.make_sample(
            image=self.read(index),
            id=self.id_of(index),
            category=self.category_of(index),
            path=self.path_of(index),
            **self.annotations_of(index),
        )

    def load(self, index: int, stream: random.Random) -> Sample:
        return self.apply(self.original(index), stream)

    @property
    def draws(self) -> bool:
        """Whether ``load`` can draw from its stream. Making one takes longer than to look up a small image."""
        own = type(self)
        return self.transform is not None or (own.load, own.apply) != (ImageDataset.load, ImageDataset.apply)

    def apply(self, sample: Sample, stream: random.Random) -> Sample:
        """The sample after ``transform``."""
        if self.transform is None:
            return sample
        try:
            with resampled_by(self.resampler):
                return transformed(self.transform, sample, stream)
        except BadImage as error:  # raised by a transform, which does not know the path
            raise BadImage(sample.get('path') or sample['id'], error.reason) from error

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
    """Image files below ``root``. They are listed at first use, never by the constructor, and opened one by one.

    ``root`` is a path, or an address such as ``s3://BUCKET/FOLDER`` (docs/remote.md).

    ``resampler`` and ``decode_to`` are faster ways to other pixels: see ``pixels.py`` and ``decode_image``. A dataset with
    annotations in pixels must not set ``decode_to``.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        name: str,
        transform: Transform = None,
        backend: Backend = 'pillow',
        pixel_limit: int = PIXEL_LIMIT,
        resampler: Resampler = 'pillow',
        decode_to: int | None = None,
    ) -> None:
        super().__init__(name, split, transform)
        check_resampler(resampler)
        if decode_to is not None and decode_to < 1:
            raise ConfigError(f'decode_to is {decode_to}', 'It is a number of pixels, or None.')
        self.resampler, self.decode_to = resampler, decode_to
        self.root = place(root)
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
        return decode_image(self.path_of(index), self.backend, self.pixel_limit, self.decode_to)

    def encoded(self, index: int) -> bytes | None:
        # what is decoded to a smaller size is another image than that of the file
        return file_bytes(self.path_of(index), self.pixel_limit) if self.decode_to is None else None

    def size_of(self, index: int) -> tuple[int, int]:
        return size_of_file(self.path_of(index), self.pixel_limit)
