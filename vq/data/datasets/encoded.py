"""The base class of datasets whose images lie encoded in larger files: tars, and tables of rows."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vq.core.errors import ConfigError
from vq.data.datasets.base import ImageDataset, Transform
from vq.data.datasets.selected import held_out_count, place_in_split
from vq.data.decode import LARGEST, Backend, BadImage, decode_image, prepare_backend
from vq.data.files import OF_SPLITS, SPLITS, is_hidden, what_is_in


class EncodedDataset(ImageDataset):
    """Subclasses define ``find``, ``id_at`` and ``data_at``, and what else samples have by ``category_at``.

    ``root`` has folders of splits, ``train``, ``validation`` (or ``val``) and ``test``, or it has none: then ``held_out``
    samples, or this fraction, are 'validation': the last ones, or every n-th one if ``shuffled`` (``SplitDataset``). Of these
    'all' is another split. Nothing is read by the constructor.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        name: str | None,
        transform: Transform,
        backend: Backend,
        pixel_limit: int,
        held_out: float,
        shuffled: bool,
    ) -> None:
        split = 'validation' if split == 'val' else split
        if split not in (*SPLITS, 'all'):
            raise ConfigError(f"there is no split '{split}'", f'Splits are: {", ".join(SPLITS)}, all.')
        if held_out < 0:
            raise ConfigError(f'held_out is {held_out}', 'It is a number of samples, or a fraction below 1.')
        self.root = Path(root).expanduser()
        super().__init__(name or self.root.name or type(self).__name__, split, transform)
        self.backend: Backend = backend
        self.pixel_limit, self.held_out, self.shuffled = pixel_limit, held_out, shuffled

    def find(self) -> tuple[int, bool]:
        """Look at the files: the number of samples, and whether they are those of the split alone."""
        raise NotImplementedError

    def id_at(self, place: int) -> str:
        raise NotImplementedError

    def data_at(self, place: int) -> bytes:
        """The encoded image. Can raise ``BadImage``."""
        raise NotImplementedError

    def category_at(self, place: int) -> int | None:
        return None

    def where(self, place: int) -> str:
        """The image, for messages."""
        return f'{self.root}/{self.id_at(place)}'

    @functools.cached_property
    def _division(self) -> tuple[int, int]:
        """The number of samples, and how many of them are held out."""
        prepare_backend(self.backend)
        count, alone = self.find()
        if alone or self.split == 'all':
            return count, 0
        if self.split == 'test' or (self.split == 'validation' and not self.held_out):
            raise ConfigError(
                f"{self.root} has no split folders, so all of it is the split 'train' and '{self.split}' is empty",
                'Set held_out to a number or a fraction, or sort the files into train/, validation/ and test/.',
            )
        return count, held_out_count(self.held_out, count) if self.held_out else 0

    def __len__(self) -> int:
        count, held = self._division
        return held if held and self.split == 'validation' else count - held

    def place_of(self, index: int) -> int:
        """The place among all samples of the files."""
        if not 0 <= index < len(self):
            raise IndexError(f'there is no sample {index} among {len(self)}')
        count, held = self._division
        return place_in_split(index, count, held, self.split == 'train', self.shuffled) if held else index

    def id_of(self, index: int) -> str:
        return self.id_at(self.place_of(index))

    def category_of(self, index: int) -> int | None:
        return self.category_at(self.place_of(index))

    def read(self, index: int) -> np.ndarray:
        place = self.place_of(index)
        try:
            return decode_image(self.data_at(place), self.backend, self.pixel_limit)
        except BadImage as error:
            raise BadImage(self.where(place), error.reason) from error

    def encoded(self, index: int) -> bytes | None:
        return self.data_at(self.place_of(index))

    def check_size(self, size: int) -> None:
        """Raise for an encoded image that no image within ``pixel_limit`` needs."""
        if size > (largest := LARGEST + 16 * self.pixel_limit):
            raise BadImage('', f'has {size:,} bytes, and at most {largest:,} are read')

    def files(self, suffixes: Sequence[str], skipped: tuple[str, ...] = ()) -> tuple[list[Path], bool]:
        """The files of the split with one of ``suffixes``, sorted, at any depth; and whether they are of the split alone.

        Splits are folders, or words in the names of files. Names that begin with one of ``skipped`` are left out.
        """
        if not self.root.is_dir():
            raise ConfigError(
                f'the dataset folder {self.root} {"is not a folder" if self.root.exists() else "does not exist"}',
                f'Give the folder that holds the files {" ".join(suffixes)}: data_root=FOLDER (root of the dataset).',
            )
        divided = self.split != 'all' and any((self.root / name).is_dir() for name in OF_SPLITS)
        below = [self.root / name for name in SPLITS.get(self.split, ())] if divided else [self.root]
        found = sorted(
            path
            for folder in below
            for path in folder.rglob('*')
            if path.name.lower().endswith(tuple(suffixes))
            and not path.name.startswith(skipped)
            and not any(map(is_hidden, path.relative_to(self.root).parts))
        )
        if not divided and self.split != 'all':
            found, divided = self._by_name(found)
        if not found:
            of_split = f' of the split {self.split}' if divided else ''
            raise ConfigError(
                f'there are no files {" ".join(suffixes)}{of_split} in {self.root}; it holds: {what_is_in(self.root)}',
                'Set root to the folder that holds them, or to the one above the folders of splits.',
            )
        return found, divided

    def _by_name(self, paths: list[Path]) -> tuple[list[Path], bool]:
        """The files of the split, if their names name several splits: ``x-train-0001.tar``."""
        named = [{OF_SPLITS[word] for word in re.split('[^a-z]+', path.name.lower()) if word in OF_SPLITS} for path in paths]
        if len(set().union(*named)) < 2:
            return paths, False
        for path, splits in zip(paths, named, strict=True):
            if len(splits) != 1:
                said = 'several' if splits else 'none'
                raise ConfigError(
                    f'files in {self.root} are named by their splits, and {path.name} is named by {said}',
                    'Sort the files into the folders train/, validation/ and test/; links do.',
                )
        return [path for path, splits in zip(paths, named, strict=True) if self.split in splits], True
