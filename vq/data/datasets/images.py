"""Images for evaluation, without any transform: a folder of image files, or a sample file (``.npz``)."""

from __future__ import annotations

import functools
import hashlib
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from vq.core.errors import ConfigError, UserError, listing
from vq.core.records import Batch
from vq.data.collate import collate
from vq.data.datasets.base import ImageDataset
from vq.data.decode import decode_image
from vq.data.files import find_images
from vq.data.names import Names
from vq.interfaces import Field, Sample
from vq.io.adm import open_samples
from vq.io.manifest import NAME as MANIFEST
from vq.io.manifest import read_manifest
from vq.registries import VQDatasetRegistry

JPEG = ('.jpg', '.jpeg')
LOOKED_AT = 64  # files whose headers are read for warnings; samples whose pixels enter the fingerprint


@VQDatasetRegistry.register_()
class ImagesDataset(ImageDataset):
    """All images below a folder, at any depth, or those of an ADM ``.npz``. Nothing is resized: all must have one size.

    Ids are paths below the folder, or the numbers of samples in the file with six digits: ``000017``.
    """

    def __init__(self, source: str | Path, name: str | None = None) -> None:
        super().__init__(name or Path(source).stem or 'images', 'all')
        self.source = Path(source).expanduser()

    @functools.cached_property
    def _content(self) -> Names | np.ndarray:
        """Paths below the folder, or the samples (N, H, W, 3) of the file."""
        if not self.source.exists():
            raise UserError(f'{self.source} does not exist', 'Give a folder of images, or an .npz file of samples.')
        if self.source.is_file():
            if self.source.suffix != '.npz':
                raise UserError(f'{self.source} is one file', 'Give a folder of images, or an .npz file of samples.')
            return open_samples(self.source)
        if (self.source / MANIFEST).is_file():
            raise UserError(
                f'{self.source} holds shards of {read_manifest(self.source).kind}, not images',
                'Decode them first: vq.test --samples writes an .npz file of reconstructions.',
            )
        return Names(find_images(self.source))

    @functools.cached_property
    def _samples(self) -> np.ndarray | None:
        return self._content if isinstance(self._content, np.ndarray) else None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the memory map: a worker process that is not forked maps the file itself."""
        mapped = isinstance(self.__dict__.get('_content'), np.memmap)
        return {key: value for key, value in self.__dict__.items() if not mapped or key not in ('_content', '_samples')}

    def __len__(self) -> int:
        return len(self._content)

    def id_of(self, index: int) -> str:
        return f'{index:06d}' if self._samples is not None else str(self._content[index])

    def path_of(self, index: int) -> str | None:
        return None if self._samples is not None else str(self.source / self.id_of(index))

    def read(self, index: int) -> np.ndarray:
        if self._samples is not None:
            return np.asarray(self._samples[index])
        return decode_image(str(self.path_of(index)))

    @functools.cached_property
    def _shape(self) -> tuple[int, ...]:
        return self.read(0).shape

    def load(self, index: int, stream: random.Random) -> Sample:
        sample = super().load(index, stream)
        shape = sample['image'].shape
        if shape != self._shape:
            raise UserError(
                f'the images in {self.source} have several sizes: {self.id_of(0)} is {self._shape[1]} x {self._shape[0]}, '
                f'{self.id_of(index)} is {shape[1]} x {shape[0]}',
                'Resize all of them to the size of the reference, by the same code: the way of resizing changes figures.',
            )
        return sample

    @functools.cached_property
    def _digest(self) -> str:
        """A hash of the names and sizes of all files, or the shape of the samples, and of the contents of some."""
        digest = hashlib.blake2b(f'{len(self)}\n'.encode(), digest_size=8)
        if self._samples is not None:
            digest.update(f'{self._samples.shape}\n'.encode())
        else:
            for index in range(len(self)):
                digest.update(f'{self.id_of(index)} {os.stat(str(self.path_of(index))).st_size}\n'.encode())
        for index in range(0, len(self), max(1, len(self) // LOOKED_AT)):
            path = self.path_of(index)
            digest.update(self.read(index).tobytes() if path is None else Path(path).read_bytes())
        return digest.hexdigest()

    def warnings(self) -> list[str]:
        """Warnings about properties that change figures: JPEG compression, gray images. Only some headers are read."""
        if self._samples is not None:
            return []
        names = [self.id_of(index) for index in range(len(self))]
        compressed = sum(name.lower().endswith(JPEG) for name in names)
        found = []
        if compressed:
            found.append(
                f'{compressed:,} of the {len(names):,} images in {self.source} are JPEG files: JPEG compression changes FID '
                'and similar figures; save samples as PNG or .npz'
            )
        some = names[:: max(1, len(names) // LOOKED_AT)]
        gray = [name for name in some if self._mode(name) in ('1', 'L', 'LA', 'I;16', 'I')]
        if gray:
            found.append(
                f'images in {self.source} are gray ({len(gray)} of {len(some)} checked, such as {gray[0]}): '
                'they are measured with three equal channels'
            )
        return found

    def _mode(self, name: str) -> str:
        try:
            with Image.open(self.source / name) as image:
                return image.mode
        except (OSError, UnidentifiedImageError):
            return 'unreadable'  # the error comes when the image is loaded


@VQDatasetRegistry.register_()
class PairsDataset(ImageDataset):
    """Pairs of images with the same name in ``first`` and ``second``; the second images of a batch are ``extra['other']``.

    A name is the path without its suffix: ``a/1.png`` is paired with ``a/1.webp``. With ``common`` images without a partner
    are left out; otherwise an error names them.
    """

    fields: Mapping[str, Field] = {'other': Field('image', moves='image')}

    def __init__(self, first: str | Path, second: str | Path, common: bool = False) -> None:
        super().__init__(f'{Path(first).stem}, {Path(second).stem}', 'all')
        self.first, self.second, self.common = ImagesDataset(first), ImagesDataset(second), common

    @functools.cached_property
    def _sides(self) -> tuple[dict[str, int], dict[str, int]]:
        return _by_name(self.first), _by_name(self.second)

    @functools.cached_property
    def _names(self) -> Names:
        first, second = self._sides
        both = sorted(first.keys() & second.keys())
        if not self.common and len(both) < len(first.keys() | second.keys()):
            raise UserError(
                f'names do not match: {self.unmatched()}', 'Complete the folders, or measure only common images: --common.'
            )
        if not both:
            raise UserError(
                f'{self.first.source} and {self.second.source} have no name in common: {self.unmatched()}',
                'The paths of a pair below the two folders must be equal, except for the suffix.',
            )
        return Names(both)

    def unmatched(self) -> str:
        """A message listing the names that only one side has; '' if there are none."""
        first, second = self._sides
        sides = ((self.first, first.keys() - second.keys()), (self.second, second.keys() - first.keys()))
        return '; '.join(f'{len(alone)} only in {side.source} ({listing(alone, 4)})' for side, alone in sides if alone)

    def __len__(self) -> int:
        return len(self._names)

    def id_of(self, index: int) -> str:
        return self._names[index]

    def load(self, index: int, stream: random.Random) -> Sample:
        name = self.id_of(index)
        image, other = (side.read(places[name]) for side, places in zip((self.first, self.second), self._sides, strict=True))
        if image.shape != other.shape:
            raise UserError(
                f"the pair '{name}' has two sizes: {image.shape[1]} x {image.shape[0]} in {self.first.source}, "
                f'{other.shape[1]} x {other.shape[0]} in {self.second.source}',
                'Resize one of them. Nothing is resized here, because the way of resizing changes figures.',
            )
        return self.make_sample(image=image, id=name, other=other)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """The default batch; the hint of its error, a transform, would change the images."""
        sizes = {sample['image'].shape: sample['id'] for sample in samples}
        if len(sizes) > 1:
            named = ', '.join(f"'{name}' of {shape[1]} x {shape[0]}" for shape, name in sizes.items())
            raise UserError(f'pairs of several sizes in one batch: {named}', 'Measure them one by one: --batch-size 1.')
        return collate(samples)


def _by_name(images: ImagesDataset) -> dict[str, int]:
    """Path without suffix -> index."""
    found: dict[str, int] = {}
    for index in range(len(images)):
        path = images.id_of(index)
        name = str(Path(path).with_suffix(''))
        if name in found:
            raise ConfigError(
                f'{images.source} has two images of the name {name}: {images.id_of(found[name])} and {path}',
                'Keep one of them.',
            )
        found[name] = index
    return found
