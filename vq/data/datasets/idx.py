"""Images in idx files, the format of MNIST, Fashion-MNIST, KMNIST and EMNIST; as they are or compressed by gzip."""

from __future__ import annotations

import functools
import gzip
import math
import os
import re
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from vq.core.errors import ConfigError, UserError
from vq.core.reading import open_regular
from vq.data.datasets.base import ImageDataset, Transform
from vq.data.files import what_is_in
from vq.registries import VQDatasetRegistry

PARTS = {'train': ('train',), 'validation': ('t10k', 'test')}  # split -> words for it in the names of files
LARGEST = 2**31  # bytes of values; EMNIST's largest file has 547,000,000
UINT8 = 8  # the code of the type


def read_idx(path: Path, rank: tuple[int, ...]) -> np.ndarray:
    """The uint8 values of an idx file with one of the numbers of dimensions ``rank``. ``UserError`` for anything else.

    The format: two zero bytes, a code of the type, the number of dimensions, each dimension in four bytes, most significant
    first, then the values. A plain file is mapped into memory.
    """
    try:
        with open_regular(path) as raw:
            if path.suffix != '.gz':
                shape, start = _header(path, raw, rank)
                _check_end(path, shape, os.fstat(raw.fileno()).st_size - start)
                return np.memmap(raw, np.uint8, 'r', start, shape)
            with gzip.GzipFile(fileobj=raw) as file:
                shape, _ = _header(path, file, rank)
                values = file.read(math.prod(shape) + 1)  # one more: what follows is not read, however much it is
                _check_end(path, shape, len(values))
                return np.frombuffer(values, np.uint8).reshape(shape)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f'{path} cannot be decompressed: {error}', 'Copy the file again.') from error
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}', 'See its permissions.') from error


def _header(path: Path, file: IO[bytes] | gzip.GzipFile, rank: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Shape, and where the values begin."""
    head = file.read(4)
    if len(head) < 4 or head[:2] != b'\0\0' or head[2] != UINT8 or head[3] not in rank:
        numbers = ' or '.join(map(str, rank))
        raise UserError(
            f'{path} begins with {head.hex(" ") or "nothing"}, not with the header of an idx file: 00 00 08, and {numbers} '
            'dimensions',
            'Take the idx files of the data set, whose values have 8 bits.',
        )
    sizes = file.read(4 * head[3])
    shape = tuple(int.from_bytes(sizes[place : place + 4]) for place in range(0, len(sizes), 4))
    if len(sizes) < 4 * head[3] or not all(shape) or math.prod(shape) > LARGEST:
        raise UserError(f'{path} has a header that says {" x ".join(map(str, shape))} values', 'Copy the file again.')
    return shape, 4 + len(sizes)


def _check_end(path: Path, shape: tuple[int, ...], there: int) -> None:
    wanted = math.prod(shape)
    if there != wanted:
        found = f'only {there:,}' if there < wanted else 'more'
        raise UserError(f'{path} has {wanted:,} values by its header, and {found} follow', 'Copy the file again.')


@VQDatasetRegistry.register_()
class IdxDataset(ImageDataset):
    """Splits 'train' and 'validation', which are the files ``train-...`` and ``t10k-...`` (or ``test-...``) below ``root``:

    ``train-images-idx3-ubyte`` (N, H, W) or (N, H, W, 3), and ``train-labels-idx1-ubyte`` (N,), with or without ``.gz``.
    ``prefix`` stands before these names, as in ``emnist-letters-``. ``transposed``: rows and columns are exchanged, as in
    EMNIST. Ids are ``NAME/SPLIT/NUMBER``. Classes are numbers; the labels of a split must be below ``classes``.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = 'train',
        transform: Transform = None,
        name: str = 'mnist',
        prefix: str = '',
        transposed: bool = False,
        classes: int = 10,
    ) -> None:
        if split not in PARTS:
            raise ConfigError(f"idx files have no split '{split}'", f'Their splits are: {", ".join(PARTS)}.')
        if not 1 <= classes <= 256:
            raise ConfigError(f'classes is {classes}', 'Labels have 8 bits: it is a number from 1 to 256.')
        super().__init__(name, split, transform)
        self.root, self.prefix, self.transposed = Path(root).expanduser(), prefix, transposed
        self.categories = tuple(map(str, range(classes)))

    def file_of(self, kind: str) -> Path:
        """The file of 'images' or 'labels'; the plain one if there is a compressed one too."""
        words = '|'.join(PARTS[self.split])
        rank = '[34]' if kind == 'images' else '1'
        pattern = re.compile(rf'{re.escape(self.prefix)}({words})-{kind}[-.]idx{rank}-ubyte(\.gz)?')
        there = sorted(entry.name for entry in self.root.iterdir()) if self.root.is_dir() else []
        found = [name for name in there if pattern.fullmatch(name)]
        if not found:
            name = f'{self.prefix}{PARTS[self.split][0]}-{kind}-idx{3 if kind == "images" else 1}-ubyte'
            holds = f'holds: {what_is_in(self.root)}' if self.root.is_dir() else 'is no folder'
            raise ConfigError(
                f'there is no {self.root / name} or {name}.gz; {self.root} {holds}',
                'Set data_root to the folder of the idx files, and prefix to what names begin with, as in emnist-letters-.',
            )
        return self.root / found[0]

    @functools.cached_property
    def images(self) -> np.ndarray:
        """(N, H, W) or (N, H, W, 3)."""
        images, file = read_idx(self.file_of('images'), (3, 4)), self.file_of('images')
        if images.ndim == 4 and images.shape[3] != 3:
            raise UserError(f'{file} has {images.shape[3]} channels', 'Images are (N, H, W) or (N, H, W, 3).')
        if len(images) != len(self.labels):
            raise UserError(
                f'{file} has {len(images):,} images, and {self.file_of("labels")} {len(self.labels):,} labels',
                'Take both files from one data set.',
            )
        return images

    @functools.cached_property
    def labels(self) -> np.ndarray:
        labels, classes = read_idx(self.file_of('labels'), (1,)), len(self.categories or ())
        if labels.max() >= classes:
            raise ConfigError(
                f'{self.file_of("labels")} has the label {labels.max()}, and classes is {classes}',
                f'Set classes to {int(labels.max()) + 1} or more.',
            )
        return labels

    def __len__(self) -> int:
        return len(self.images)

    def id_of(self, index: int) -> str:
        return f'{self.name}/{self.split}/{index:06d}'

    def category_of(self, index: int) -> int:
        return int(self.labels[index])

    def read(self, index: int) -> np.ndarray:
        image = self.images[index]
        image = image.swapaxes(0, 1) if self.transposed else image
        return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else np.array(image)

    def fingerprint(self) -> str:
        """Ids do not depend on the contents, so the contents count."""
        return f'{self._digest[:8]}{zlib.crc32(self.images.data, zlib.crc32(self.labels.data)):08x}'
