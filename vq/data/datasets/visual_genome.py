"""Visual Genome: photographs and the objects in them, as graphs of scenes are learned from."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vq.core.errors import ConfigError
from vq.core.reading import read_json
from vq.data import hdf5
from vq.data.datasets.base import FileDataset, FileIndex, Transform
from vq.data.decode import PIXEL_LIMIT, Backend
from vq.data.files import what_is_in
from vq.data.names import Names, is_name
from vq.interfaces import Sample
from vq.registries import VQDatasetRegistry

FILES = {'train': 'train.h5', 'validation': 'val.h5', 'test': 'test.h5'}
IMAGES, VOCABULARY = 'images', 'vocab.json'


class Scenes(NamedTuple):
    """N images with up to O objects; what is beyond ``counts`` is padding."""

    names: Names
    classes: np.ndarray  # (N, O) int32
    boxes: np.ndarray  # (N, O, 4) float32: left, top, width, height in pixels
    counts: np.ndarray  # (N,)


@VQDatasetRegistry.register_()
class VisualGenomeDataset(FileDataset):
    """Splits 'train', 'validation' and 'test': ``{train,val,test}.h5`` and ``vocab.json`` beside the folder ``images``.

    ``boxes`` and ``box_categories`` are the objects of an image; if there are more than ``objects``, the largest ones, in the
    order of the file. ``text`` are the names of their classes, each once, joined by commas. docs/datasets.md has the arrays in
    the files.
    """

    def __init__(
        self,
        root: str | Path = 'data/vg',
        split: str = 'train',
        objects: int = 10,
        transform: Transform = None,
        backend: Backend = 'pillow',
        name: str = 'visual_genome',
        pixel_limit: int = PIXEL_LIMIT,
    ) -> None:
        if split not in FILES:
            raise ConfigError(f"Visual Genome has no split '{split}'", f'Its splits are: {", ".join(FILES)}.')
        if objects < 1:
            raise ConfigError(f'objects is {objects}', 'It is the most objects of an image, 1 or more.')
        super().__init__(root, split, name, transform, backend, pixel_limit)
        self.objects = objects

    def _file(self, name: str) -> Path:
        file = self.root / name
        if not file.is_file():
            there = what_is_in(self.root) if self.root.is_dir() else 'nothing, it is no folder'
            raise ConfigError(
                f'Visual Genome needs {file}, which does not exist; {self.root} holds: {there}',
                f'Run: python -m vq.tools.prepare_data vg, or set data_root to the folder with {VOCABULARY} and {IMAGES}/.',
            )
        return file

    @functools.cached_property
    def label_names(self) -> Sequence[str]:  # type: ignore[override]
        """The classes of objects; number 0 is '__image__', which no object has."""
        file = self._file(VOCABULARY)
        try:
            content = read_json(file)
        except (OSError, ValueError) as error:
            raise ConfigError(f'{file} cannot be read: {error}', 'Copy the file again.') from error
        names = content.get('object_idx_to_name') if isinstance(content, dict) else None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.isprintable() for name in names):
            raise ConfigError(f'{file} has no list of names object_idx_to_name', 'Copy the file again.')
        return tuple(names)

    @functools.cached_property
    def scenes(self) -> Scenes:
        path = self._file(FILES[self.split])
        with hdf5.opened(path) as file:
            names = list(hdf5.texts(file, path, 'image_paths'))
            classes, boxes = hdf5.numbers(file, path, 'object_names', 2), hdf5.numbers(file, path, 'object_boxes', 3)
            counts = hdf5.numbers(file, path, 'objects_per_image', 1)
        shape = (len(names), classes.shape[1])
        if classes.shape != shape or boxes.shape != (*shape, 4) or counts.shape != shape[:1] or not names:
            raise ConfigError(
                f'{path} has {len(names)} image_paths, object_names {classes.shape}, object_boxes {boxes.shape} and '
                f'objects_per_image {counts.shape}',
                'They are (N,), (N, O), (N, O, 4) and (N,). Write or copy the file again.',
            )
        there = np.arange(shape[1]) < counts[:, None]
        wrong = (classes < 0) | (classes >= len(self.label_names)) | ~np.isfinite(boxes).all(2) | (boxes[..., 2:] <= 0).any(2)
        if (counts > shape[1]).any() or (wrong & there).any():
            row = int(np.flatnonzero((counts > shape[1]) | (wrong & there).any(1))[0])
            raise ConfigError(
                f'{path} has an odd object in {names[row]!r:.80}: its class is not among the {len(self.label_names)} of '
                f'{VOCABULARY}, its box has no area, or objects_per_image is wrong',
                'Take files that were written together.',
            )
        if odd := next((name for name in names if not all(map(is_name, name.split('/')))), None):
            raise ConfigError(f'{path} has an image path that leaves {IMAGES}/, or is none: {odd!r:.80}', 'Copy it again.')
        if len(set(names)) < len(names):
            raise ConfigError(f'{path} lists {len(names) - len(set(names))} images twice', 'Write or copy the file again.')
        return Scenes(Names(names), classes.astype(np.int32), boxes.astype(np.float32), counts.astype(np.int64))

    def find(self) -> FileIndex:
        names = self.scenes.names
        first = self.root / IMAGES / names[0]
        if not first.is_file():
            place = self.root / IMAGES
            there = what_is_in(place) if place.is_dir() else 'nothing, it is no folder'
            raise ConfigError(
                f'{first} does not exist, and {FILES[self.split]} lists it; {place} holds: {there}',
                'Run: python -m vq.tools.prepare_data vg, or unpack images.zip and images2.zip there.',
            )
        return FileIndex(Names(f'{IMAGES}/{name}' for name in names))

    def annotations_of(self, index: int) -> Mapping[str, Any]:
        count = int(self.scenes.counts[index])
        boxes = self.scenes.boxes[index, :count]
        largest = np.sort(np.argsort(-boxes[:, 2:].prod(1), kind='stable')[: self.objects])
        boxes, classes = boxes[largest], self.scenes.classes[index, largest].astype(np.int64)
        names = dict.fromkeys(self.label_names[number] for number in classes)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        return {'boxes': corners, 'box_categories': classes, 'text': ', '.join(names)}

    def original(self, index: int) -> Sample:
        """Boxes are clipped to the image, whose size the files do not have."""
        sample = super().original(index)
        height, width = sample.size
        boxes = sample['boxes'].clip(0, [width, height, width, height]).astype(np.float32)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return sample.but(boxes=boxes[inside], box_categories=sample['box_categories'][inside])
