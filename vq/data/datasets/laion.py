"""LAION-Aesthetics: images with captions, in any of the layouts that its downloads have."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vq.core.errors import ConfigError
from vq.core.reading import open_regular
from vq.data.datasets.base import FileDataset, FileIndex, ImageDataset, Transform
from vq.data.datasets.hugging_face import HuggingFaceDataset
from vq.data.datasets.web import WebDataset
from vq.data.decode import PIXEL_LIMIT, Backend
from vq.data.files import what_is_in
from vq.data.names import Names
from vq.registries import VQDatasetRegistry

VERSION = 'v2_6.5plus'
LONGEST = 100_000  # bytes of a line of the list


class ListedImages(FileDataset):
    """The image files of a list: ``annotations/VERSION.tsv`` has FILE, caption, score and address in each line.

    FILE lies in the folder VERSION. A caption can hold tabs.
    """

    def find(self) -> FileIndex:
        return FileIndex(self._listed[0])

    @functools.cached_property
    def _listed(self) -> tuple[Names, Names]:
        """Paths below root, and captions."""
        file = self.root / 'annotations' / f'{VERSION}.tsv'
        names: list[str] = []
        captions: list[str] = []
        try:
            with open_regular(file) as lines:
                while line := lines.readline(LONGEST):
                    cells = line.decode().rstrip('\r\n').split('\t')
                    if len(cells) < 4 or not cells[0].isprintable() or '..' in cells[0].split('/') or cells[0].startswith('/'):
                        raise ConfigError(
                            f'line {len(names) + 1} of {file} is {line[:60]!r}',
                            'Each line has the name of a file, its caption, score and address, with tabs between them.',
                        )
                    names.append(f'{VERSION}/{cells[0]}')
                    captions.append('\t'.join(cells[1:-2]))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f'{file} cannot be read: {error}', 'Copy the file again.') from error
        if not names:
            raise ConfigError(f'{file} lists no image', 'Copy the file again.')
        return Names(names), Names(captions)

    def annotations_of(self, index: int) -> Mapping[str, Any]:
        return {'text': self._listed[1][index]}


@VQDatasetRegistry.register_()
class LAIONAestheticsDataset(ImageDataset):
    """All images, without splits, with their captions. ``root`` holds one of these:

    - WebDataset tars, as img2dataset writes them: ``00000.tar`` with ``KEY.jpg`` and ``KEY.txt``;
    - parquet files with a column of the images' bytes, and a caption;
    - ``annotations/v2_6.5plus.tsv`` and the image files in ``v2_6.5plus/``.
    """

    def __init__(
        self,
        root: str | Path = 'data/laion/aesthetics',
        transform: Transform = None,
        backend: Backend = 'pillow',
        name: str = 'laion_aesthetics',
        pixel_limit: int = PIXEL_LIMIT,
    ) -> None:
        super().__init__(name, 'all', transform)
        self.root, self.backend, self.pixel_limit = Path(root).expanduser(), backend, pixel_limit

    @functools.cached_property
    def images(self) -> ImageDataset:
        """The dataset of the layout that is there."""
        if not self.root.is_dir():
            raise ConfigError(
                f'the dataset folder {self.root} does not exist', 'Give the folder of the images: data_root=FOLDER.'
            )
        reading: Any = {'root': self.root, 'name': self.name, 'backend': self.backend, 'pixel_limit': self.pixel_limit}
        if (self.root / 'annotations' / f'{VERSION}.tsv').is_file():
            return ListedImages(split='all', **reading)
        if any(self.root.rglob('*.tar')):
            return WebDataset(split='all', category=None, **reading)
        if any(self.root.rglob('*.parquet')):
            return HuggingFaceDataset(split='all', label=None, **reading)
        raise ConfigError(
            f'{self.root} holds neither tars nor parquet files nor annotations/{VERSION}.tsv, but: {what_is_in(self.root)}',
            'Fetch the images with img2dataset, for instance: docs/datasets.md.',
        )

    def __len__(self) -> int:
        return len(self.images)

    def id_of(self, index: int) -> str:
        return self.images.id_of(index)

    def path_of(self, index: int) -> str | None:
        return self.images.path_of(index)

    def read(self, index: int) -> np.ndarray:
        return self.images.read(index)

    def annotations_of(self, index: int) -> Mapping[str, Any]:
        return self.images.annotations_of(index)
