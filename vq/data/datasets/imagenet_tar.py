"""ImageNet-1k from the tars that it is published as, without unpacking them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vq.core.errors import ConfigError
from vq.core.reading import read_bytes
from vq.data.datasets.base import Transform
from vq.data.datasets.encoded import EncodedDataset
from vq.data.datasets.imagenet import ImageNetDataset
from vq.data.decode import PIXEL_LIMIT, Backend
from vq.data.files import SUFFIXES, is_hidden, what_is_in
from vq.data.names import Names
from vq.data.tar import TarFiles, TarIndex, index_of
from vq.registries import VQDatasetRegistry

TARS = {'train': ('ILSVRC2012_img_train.tar', 'train.tar'), 'validation': ('ILSVRC2012_img_val.tar', 'val.tar')}
FOLDERS = {'train': 'train', 'validation': 'val'}
LISTS = ('LOC_val_solution.csv', 'val.txt')  # of the classes of validation images
LARGEST = 100_000_000  # bytes of a list; that of the 50,000 validation images has a few
CLASS = re.compile(r'(?:^|/)(n[0-9]{8})(?:\.tar)?/')  # the folder, or the tar, of a class
LINE = re.compile(r'^([\w.-]+?)(?:\.JPEG)?[,\s]+(n[0-9]{8})\b', re.MULTILINE)  # NAME,WNID and a box; or NAME WNID


@VQDatasetRegistry.register_()
class ImageNetTarDataset(EncodedDataset):
    """Splits 'train' and 'validation'. Samples have the order, the ids and the classes of unpacked folders (ImageNetDataset).

    ``ILSVRC2012_img_train.tar`` holds a tar for each class. ``ILSVRC2012_img_val.tar`` holds the images alone: their classes
    are in ``LOC_val_solution.csv`` of the challenge, in ``val.txt`` with NAME WNID in each line, or in
    ``annotations/val.json`` and ``synsets.json``. Tars of images in folders of their classes are read too.
    """

    def __init__(
        self,
        root: str | Path = 'data/imagenet',
        split: str = 'train',
        transform: Transform = None,
        backend: Backend = 'pillow',
        name: str = 'imagenet',
        pixel_limit: int = PIXEL_LIMIT,
    ) -> None:
        super().__init__(root, split, name, transform, backend, pixel_limit, 0.0, False)
        if self.split not in TARS:
            raise ConfigError(f"ImageNet has no split '{split}'", "Its splits are 'train' and 'validation'.")
        self._tars = TarFiles()

    @functools.cached_property
    def _listed(self) -> tuple[Path, TarIndex, Names, np.ndarray, np.ndarray, tuple[str, ...]]:
        """The tar and its index; of each sample the id, the number of the member and the class; the classes."""
        path = next((self.root / name for name in TARS[self.split] if (self.root / name).is_file()), None)
        if path is None:
            holds = f'it holds: {what_is_in(self.root)}' if self.root.is_dir() else 'which is no folder'
            raise ConfigError(
                f'there is no {" or ".join(TARS[self.split])} in {self.root}, {holds}',
                'Set data_root to the folder of the tars. Unpacked images are dataset=imagenet.',
            )
        index = index_of(path, nested=True)
        rows, unknown, listed = [], [], self._classes_of_names() if self.split == 'validation' else {}
        for number, name in enumerate(index.names):
            file = name.rpartition('/')[2]
            if is_hidden(file) or not file.lower().endswith(SUFFIXES):
                continue
            inside = CLASS.findall(name)
            wnid = inside[-1] if inside else listed.get(file.rpartition('.')[0])
            rows.append((f'{FOLDERS[self.split]}/{wnid}/{file}', number, wnid or ''))
            unknown += [] if wnid else [name]
        if unknown or not rows:
            what = 'there is no image'
            if rows:
                what = f'{len(unknown)} of {len(rows)} images, such as {unknown[0]}, have no class'
            raise ConfigError(
                f'{path}: {what}',
                f'Put {" or ".join(LISTS)} with their classes into {self.root}.' if rows else 'Copy the tar again.',
            )
        rows.sort()
        wnids = sorted({wnid for _, _, wnid in rows} | {*listed.values()})
        numbers = {wnid: number for number, wnid in enumerate(wnids)}
        members = np.array([number for _, number, _ in rows], dtype=np.int64)
        labels = np.array([numbers[wnid] for _, _, wnid in rows], dtype=np.int32)
        return path, index, Names(name for name, _, _ in rows), members, labels, tuple(wnids)

    def _classes_of_names(self) -> Mapping[str, str]:
        """Name of a validation image, without its suffix -> WNID."""
        if (self.root / 'annotations/val.json').is_file():
            paths = (path.split('/') for path in ImageNetDataset(self.root, 'validation').find().paths)
            return {name.rpartition('.')[0]: wnid for _, wnid, name in paths}
        for file in (self.root / name for name in LISTS):
            if file.is_file():
                try:
                    found = dict(LINE.findall(read_bytes(file, LARGEST).decode()))
                except (OSError, ValueError) as error:
                    raise ConfigError(f'{file} cannot be read: {error}', 'Copy the file again.') from error
                if not found:
                    raise ConfigError(f'{file} has no line with the name of an image and a WNID', 'Copy the file again.')
                return found
        return {}

    def find(self) -> tuple[int, bool]:
        return len(self._listed[2]), True

    @functools.cached_property
    def categories(self) -> Sequence[str] | None:  # type: ignore[override]
        return self._listed[5]

    def id_at(self, place: int) -> str:
        return self._listed[2][place]

    def category_at(self, place: int) -> int | None:
        return int(self._listed[4][place])

    def where(self, place: int) -> str:
        path, index, _, members, _, _ = self._listed
        return f'{path}/{index.names[int(members[place])]}'

    def data_at(self, place: int) -> bytes:
        path, index, _, members, _, _ = self._listed
        number = int(members[place])
        self.check_size(int(index.sizes[number]))
        return self._tars.read(path, int(index.offsets[number]), int(index.sizes[number]), int(index.checks[number]))
