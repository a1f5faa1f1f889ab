"""COCO: photographs of everyday scenes, each with five captions."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vq.core.errors import ConfigError
from vq.data.coco_files import Images, Objects, read_captions, read_objects
from vq.data.datasets.base import FileDataset, FileIndex, Transform
from vq.data.decode import PIXEL_LIMIT, Backend
from vq.data.files import find_images, what_is_in
from vq.data.names import Names
from vq.data.transforms import below
from vq.interfaces import Sample
from vq.registries import VQDatasetRegistry

Captions = Literal['none', 'caption', 'caption_and_classes']
Year = Literal[2014, 2017]

FOLDERS = {'train': 'train', 'validation': 'val'}  # split -> the beginning of the name of its folder
CLASSES = (
    *('person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat', 'traffic light', 'fire hydrant'),
    *('stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog', 'horse', 'sheep', 'cow', 'elephant', 'bear', 'zebra'),
    *('giraffe', 'backpack', 'umbrella', 'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite'),
    *('baseball bat', 'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle', 'wine glass', 'cup', 'fork'),
    *('knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich', 'orange', 'broccoli', 'carrot', 'hot dog', 'pizza', 'donut'),
    *('cake', 'chair', 'couch', 'potted plant', 'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote'),
    *('keyboard', 'cell phone', 'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book', 'clock', 'vase', 'scissors'),
    *('teddy bear', 'hair drier', 'toothbrush'),
)


class Grouped:
    """Rows that belong to images: those of image i are ``order[starts[i]:starts[i + 1]]``, in the order of the file."""

    def __init__(self, owners: np.ndarray, count: int) -> None:
        self.order = np.argsort(owners, kind='stable')
        self.starts = np.searchsorted(owners[self.order], np.arange(count + 1))

    def of(self, index: int) -> np.ndarray:
        rows: np.ndarray = self.order[self.starts[index] : self.starts[index + 1]]
        return rows


class CaptionedDataset(FileDataset):
    """Base class of COCO: which captions a sample has as ``text``.

    - ``captions``: 'none'; 'caption': one of the captions of the image; 'caption_and_classes': that, then the names of the
      classes of its objects, each once, all joined by commas. Which caption it is, is drawn at each load.
    - ``empty_text``: the share of loads whose text is empty, as models learn it that are guided away from an empty text.

    They are drawn after the transform, so that crops do not depend on them.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        name: str,
        year: Year,
        captions: Captions,
        empty_text: float,
        transform: Transform,
        backend: Backend,
        pixel_limit: int,
    ) -> None:
        if split not in FOLDERS:
            raise ConfigError(f"COCO has no split '{split}'", f'Its splits are: {", ".join(FOLDERS)}.')
        if not 0 <= empty_text <= 1:
            raise ConfigError(f'empty_text is {empty_text}', 'It is the share of loads with an empty text, from 0 to 1.')
        super().__init__(root, split, name, transform, backend, pixel_limit)
        self.year, self.captions, self.empty_text = year, captions, empty_text
        self.folder = f'{FOLDERS[split]}{year}'

    def annotation_file(self, kind: str) -> Path:
        """``annotations/KIND_{train,val}YEAR.json``; an error that says what is there if it is not."""
        file = self.root / 'annotations' / f'{kind}_{self.folder}.json'
        if not file.is_file():
            place = file.parent if file.parent.is_dir() else self.root
            there = what_is_in(place) if place.is_dir() else 'nothing, it is no folder'
            raise ConfigError(
                f'COCO needs {file}, which does not exist; {place} holds: {there}',
                'Run: python -m vq.tools.prepare_data coco, set data_root to the folder of annotations/, or captions to none.',
            )
        return file

    def listed(self, names: Names) -> Names:
        """Paths of the images of an annotation file; an error if the first of them is not there."""
        first = self.root / self.folder / names[0]
        if not first.is_file():
            there = what_is_in(first.parent) if first.parent.is_dir() else 'nothing, it is no folder'
            raise ConfigError(
                f'{first} does not exist, and the annotations list it; {first.parent} holds: {there}',
                'Run: python -m vq.tools.prepare_data coco, or take images and annotations of one year and split.',
            )
        return Names(f'{self.folder}/{name}' for name in names)

    @functools.cached_property
    def _captions(self) -> tuple[Images, np.ndarray, Names]:
        return read_captions(self.annotation_file('captions'))

    def names_in(self, index: int) -> list[str]:
        """The names of the classes of the objects of an image, each once, by their numbers."""
        raise NotImplementedError

    @functools.cached_property
    def _captions_of(self) -> Grouped:
        """The captions of each sample."""
        images, ids, _ = self._captions
        rows = images.rows_of(ids, self.annotation_file('captions'))
        place = {name: index for index, name in enumerate(self.index.paths)}
        place_of_row = np.array([place.get(f'{self.folder}/{name}', len(place)) for name in images.names])
        return Grouped(place_of_row[rows], len(place))

    def text_with(self, index: int, choice: int) -> str:
        """The text with caption number ``choice``, counted around."""
        rows = self._captions_of.of(index)
        parts = [self._captions[2][int(rows[choice % len(rows)])]] if len(rows) else []
        return ', '.join([*parts, *(self.names_in(index) if self.captions == 'caption_and_classes' else [])])

    def annotations_of(self, index: int) -> Mapping[str, Any]:
        """The first caption; ``load`` puts another in its place."""
        return {} if self.captions == 'none' else {'text': self.text_with(index, 0)}

    def load(self, index: int, stream: random.Random) -> Sample:
        sample = super().load(index, stream)
        if self.captions == 'none':
            return sample
        choice, empty = below(stream, max(1, len(self._captions_of.of(index)))), stream.random() < self.empty_text
        return sample.but(text='' if empty else self.text_with(index, choice))


@VQDatasetRegistry.register_()
class COCODataset(CaptionedDataset):
    """COCO 2014 or 2017, splits 'train' and 'validation': images and captions; see ``CaptionedDataset``.

    Images are ``{train,val}YEAR/NAME.jpg``. Captions are read from ``annotations/captions_{train,val}YEAR.json``, classes of
    objects from ``instances_{train,val}YEAR.json`` beside it, each only if ``captions`` asks for it. The category is always 0,
    of 80 classes: an image of COCO has no single class.
    """

    categories = CLASSES

    def __init__(
        self,
        root: str | Path = 'data/coco',
        split: str = 'train',
        year: Year = 2014,
        captions: Captions = 'none',
        empty_text: float = 0.0,
        transform: Transform = None,
        backend: Backend = 'pillow',
        name: str | None = None,
        pixel_limit: int = PIXEL_LIMIT,
    ) -> None:
        name = name or f'coco_{year}'
        super().__init__(root, split, name, year, captions, empty_text, transform, backend, pixel_limit)

    def find(self) -> FileIndex:
        if self.captions == 'none':
            return FileIndex(Names(find_images(self.root, self.folder)))
        return FileIndex(self.listed(self._captions[0].names))

    def category_of(self, index: int) -> int:
        return 0

    @functools.cached_property
    def _objects(self) -> tuple[Objects, Grouped, dict[int, str]]:
        file = self.annotation_file('instances')
        images, objects, names = read_objects(file)
        place = {name: index for index, name in enumerate(self.index.paths)}
        place_of_row = np.array([place.get(f'{self.folder}/{name}', len(place)) for name in images.names])
        return objects, Grouped(place_of_row[images.rows_of(objects.image_ids, file)], len(place)), names

    def names_in(self, index: int) -> list[str]:
        objects, grouped, names = self._objects
        return [names[int(number)] for number in np.unique(objects.category_ids[grouped.of(index)])]
