"""COCO-Stuff: what is where in the photographs of COCO, as boxes and as maps."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vq.core.errors import ConfigError
from vq.data.coco_files import Images, read_objects
from vq.data.datasets.base import FileIndex, Transform
from vq.data.datasets.coco import CaptionedDataset, Captions, Grouped, Year
from vq.data.decode import PIXEL_LIMIT, Backend, BadImage
from vq.data.labels import decode_labels
from vq.data.names import Names
from vq.interfaces import Sample
from vq.registries import VQDatasetRegistry

OTHER = 183  # the class of stuff that has no other one
CLASSES = OTHER - 1  # the number of a class is its id less 1
SMALLEST = 0.02  # of the area of the image: boxes must be larger
OBJECTS = {'train': (3, 100), 'validation': (3, 8)}  # the fewest and the most of an image
MAPS = 'stuffthingmaps'


class Layouts(NamedTuple):
    """The images with boxes that are kept, and these boxes."""

    names: Names
    sizes: np.ndarray  # (N, 2): height, width
    boxes: np.ndarray  # (M, 4) float32: x1, y1, x2, y2 in pixels
    classes: np.ndarray  # (M,) int16
    boxes_of: Grouped


@VQDatasetRegistry.register_()
class COCOStuffDataset(CaptionedDataset):
    """COCO with the boxes of things and stuff, splits 'train' and 'validation'.

    ``boxes`` and ``box_categories`` are from ``annotations/{instances,stuff}_{train,val}YEAR.json``; ``stuff=False`` leaves
    the second file out. The number of a class is its id less 1: 0 to 89 are things, 91 to 181 stuff. A box is kept if it
    covers more than ``smallest`` of its image, is of one object, not of a crowd, and its class is not 'other'. An image is
    kept if it has at least ``objects[0]`` and at most ``objects[1]`` of them; None: 3 and 100 to train, 3 and 8 to validate.

    ``masks``: ``mask`` is the map ``stuffthingmaps/{train,val}YEAR/NAME.png`` of class numbers, 255 where there is none.
    ``captions`` and ``empty_text`` are those of ``CaptionedDataset``, from ``captions_{train,val}YEAR.json``.
    """

    def __init__(
        self,
        root: str | Path = 'data/coco',
        split: str = 'train',
        year: Year = 2017,
        captions: Captions = 'none',
        empty_text: float = 0.0,
        stuff: bool = True,
        masks: bool = False,
        smallest: float = SMALLEST,
        objects: tuple[int, int] | None = None,
        transform: Transform = None,
        backend: Backend = 'pillow',
        name: str = 'coco_stuff',
        pixel_limit: int = PIXEL_LIMIT,
    ) -> None:
        super().__init__(root, split, name, year, captions, empty_text, transform, backend, pixel_limit)
        fewest, most = objects or OBJECTS[split]
        if not 0 <= smallest < 1 or not 0 <= fewest <= most:
            raise ConfigError(
                f'smallest is {smallest}, and objects are {fewest} to {most}',
                'smallest is a share of the area, from 0 to below 1; objects are the fewest and the most of an image.',
            )
        self.kinds = ('instances', 'stuff') if stuff else ('instances',)
        self.masks, self.smallest, self.objects = masks, smallest, (fewest, most)

    @functools.cached_property
    def _found(self) -> tuple[Layouts, tuple[str, ...]]:
        """The layouts, and the names of classes."""
        images: Images | None = None
        rows, boxes, classes, named = [], [], [], dict[int, str]()
        for kind in self.kinds:
            file = self.annotation_file(kind)
            found, objects, names = read_objects(file)
            images = images or found
            if max(names) > OTHER:
                raise ConfigError(f'{file} has a class {max(names)}, and those of COCO go to {OTHER}', 'Copy the file again.')
            named |= names
            places = images.rows_of(objects.image_ids, file)
            areas = images.sizes[places].prod(1, dtype=np.float64)
            left, top, width, height = objects.boxes.T
            kept = (width > 0) & (height > 0) & (width * height > self.smallest * areas)
            kept &= ~objects.crowds & (objects.category_ids != OTHER)
            corners = np.stack([left, top, left + width, top + height], 1)[kept]
            ends = images.sizes[places[kept]][:, [1, 0, 1, 0]]
            boxes.append(corners.clip(0, ends).astype(np.float32))
            classes.append((objects.category_ids[kept] - 1).astype(np.int16))
            rows.append(places[kept])
        assert images is not None
        names_of_classes = tuple(named.get(number + 1, f'unused {number}') for number in range(CLASSES))
        return self._kept(images, np.concatenate(rows), np.concatenate(boxes), np.concatenate(classes)), names_of_classes

    def _kept(self, images: Images, rows: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> Layouts:
        """The images with the wanted number of objects."""
        count = np.bincount(rows, minlength=len(images.names))
        kept = np.flatnonzero((count >= self.objects[0]) & (count <= self.objects[1]))
        if not len(kept):
            raise ConfigError(
                f'none of the {len(images.names):,} images of {self.annotation_file("instances")} has {self.objects[0]} to '
                f'{self.objects[1]} objects of more than {self.smallest:.0%} of its area',
                'Set objects or smallest, or copy the complete files.',
            )
        places = np.full(len(images.names), len(kept))
        places[kept] = np.arange(len(kept))
        grouped = Grouped(places[rows], len(kept))
        return Layouts(Names(images.names[int(row)] for row in kept), images.sizes[kept], boxes, classes, grouped)

    def find(self) -> FileIndex:
        return FileIndex(self.listed(self._found[0].names))

    @functools.cached_property
    def label_names(self) -> Sequence[str]:  # type: ignore[override]
        return self._found[1]

    def names_in(self, index: int) -> list[str]:
        layouts = self._found[0]
        return [self.label_names[int(number)] for number in np.unique(layouts.classes[layouts.boxes_of.of(index)])]

    def annotations_of(self, index: int) -> Mapping[str, Any]:
        layouts = self._found[0]
        rows = layouts.boxes_of.of(index)
        classes = layouts.classes[rows].astype(np.int64)
        found = {**super().annotations_of(index), 'boxes': layouts.boxes[rows], 'box_categories': classes}
        if self.masks:
            file = self.root / MAPS / self.folder / f'{Path(self.id_of(index)).stem}.png'
            found['mask'] = decode_labels(file, CLASSES, self.pixel_limit)
        return found

    def original(self, index: int) -> Sample:
        sample = super().original(index)
        annotated = tuple(self._found[0].sizes[index].tolist())
        for what in ('image', 'mask'):
            if what in sample and sample[what].shape[:2] != annotated:
                height, width = sample[what].shape[:2]
                raise BadImage(
                    self.path_of(index),
                    f'has {"a map" if what == "mask" else "an image"} of {width} x {height} pixels, and its annotation is of '
                    f'{annotated[1]} x {annotated[0]}',
                )
        return sample
