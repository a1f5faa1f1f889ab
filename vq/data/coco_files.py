"""Annotation files of COCO: images, objects and captions, as arrays.

An instances file of 118,287 images and 860,001 objects has half a gigabyte of JSON. Read at once it takes several gigabytes of
Python objects; it is read entry by entry, and what stays are arrays.
"""

from __future__ import annotations

import dataclasses
from array import array
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from vq.core.errors import ConfigError
from vq.data.names import Names, is_name
from vq.io.json_stream import entries

LONGEST = 10_000  # characters of a caption; COCO's have up to 250
SIDE = 100_000  # pixels
MOST_CLASSES = 1_000


@dataclasses.dataclass(frozen=True)
class Images:
    """N images, sorted by their names."""

    names: Names  # of the files
    ids: np.ndarray  # (N,) int64
    sizes: np.ndarray  # (N, 2) int32: height, width

    def rows_of(self, ids: np.ndarray, file: Path) -> np.ndarray:
        """The places of images by their ids; ``ConfigError`` if one is not there."""
        order = np.argsort(self.ids)
        places = np.searchsorted(self.ids, ids, sorter=order).clip(max=len(self.ids) - 1)
        rows: np.ndarray = order[places]
        if (wrong := self.ids[rows] != ids).any():
            raise ConfigError(
                f'{file} has an annotation of the image {ids[wrong][0]}, which its list of images lacks',
                'Take the annotation files of one year and split.',
            )
        return rows


@dataclasses.dataclass(frozen=True)
class Objects:
    """M objects of images."""

    image_ids: np.ndarray  # (M,) int64
    boxes: np.ndarray  # (M, 4) float64: left, top, width, height in pixels
    category_ids: np.ndarray  # (M,) int64
    crowds: np.ndarray  # (M,) bool: one box for many


def read_objects(file: Path) -> tuple[Images, Objects, dict[int, str]]:
    """An instances or stuff file, and the names of its classes by their ids."""
    images, names = _ImageList(file), dict[int, str]()
    numbers, boxes = array('q'), array('d')  # image, class, crowd; box
    for key, entry in entries(file):
        if key == 'images':
            images.add(entry)
        elif key == 'categories':
            number, name = _get(entry, 'id'), _get(entry, 'name')
            if not _is_number(number, MOST_CLASSES) or not isinstance(name, str) or not name.isprintable() or number in names:
                _refuse(file, 'category', entry, '{"id": NUMBER, "name": TEXT}')
            names[number] = name
        elif key == 'annotations':
            row = (_get(entry, 'image_id'), _get(entry, 'category_id'), _get(entry, 'iscrowd', 0))
            box = _get(entry, 'bbox')
            wanted = '{"image_id": NUMBER, "category_id": NUMBER, "bbox": [X, Y, WIDTH, HEIGHT], "iscrowd": 0 or 1}'
            if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, row)):
                _refuse(file, 'annotation', entry, wanted)
            try:
                boxes.extend(box)
            except (TypeError, OverflowError):
                _refuse(file, 'annotation', entry, wanted)
            numbers.extend(row)
    table = np.frombuffer(numbers, np.int64).reshape(-1, 3) if numbers else np.zeros((0, 3), np.int64)
    corners = np.frombuffer(boxes, np.float64).reshape(-1, 4) if boxes else np.zeros((0, 4))
    if not np.isfinite(corners).all():
        _refuse(file, 'annotation', {'bbox': corners[~np.isfinite(corners).all(1)][0].tolist()}, 'finite numbers of pixels')
    if len(unknown := np.setdiff1d(table[:, 1], list(names))):
        raise ConfigError(
            f'{file} has annotations of the class {unknown[0]}, which its categories lack', 'Copy the complete file.'
        )
    return images.sorted(), Objects(table[:, 0], corners, table[:, 1], table[:, 2] != 0), names


def read_captions(file: Path) -> tuple[Images, np.ndarray, Names]:
    """Images, ids of images (K,), and the caption of each of these."""
    images, ids, texts = _ImageList(file), array('q'), list[str]()
    for key, entry in entries(file):
        if key == 'images':
            images.add(entry)
        elif key == 'annotations':
            number, text = _get(entry, 'image_id'), _get(entry, 'caption')
            if not _is_number(number) or not isinstance(text, str) or len(text) > LONGEST:
                _refuse(file, 'annotation', entry, '{"image_id": NUMBER, "caption": TEXT}')
            ids.append(number)
            texts.append(' '.join(text.encode(errors='replace').decode().split()))  # many end with a space or a new line
    if not texts:
        raise ConfigError(f'{file} holds no captions', 'Take captions_train2017.json, or the one of your year and split.')
    return images.sorted(), np.frombuffer(ids, np.int64), Names(texts)


class _ImageList:
    """The images of a file, while it is read."""

    def __init__(self, file: Path) -> None:
        self.file, self.names, self.numbers = file, list[str](), array('q')  # id, height, width

    def add(self, entry: Any) -> None:
        row = (_get(entry, 'id'), _get(entry, 'height'), _get(entry, 'width'))
        name = _get(entry, 'file_name')
        whole = _is_number(row[0]) and all(_is_number(side, SIDE) and side > 0 for side in row[1:])
        if not whole or not isinstance(name, str) or not is_name(name):
            _refuse(self.file, 'image', entry, '{"id": NUMBER, "file_name": NAME, "height": NUMBER, "width": NUMBER}')
        self.names.append(name)
        self.numbers.extend(row)

    def sorted(self) -> Images:
        if not self.names:
            raise ConfigError(f'{self.file} lists no images', 'Copy the complete file.')
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        table = np.frombuffer(self.numbers, np.int64).reshape(-1, 3)[order]
        for what, count in (('names of files', len(set(self.names))), ('ids', len(np.unique(table[:, 0])))):
            if count < len(order):
                raise ConfigError(f'{self.file} lists {len(order):,} images with {count:,} {what}', 'Copy the file again.')
        return Images(Names(self.names[row] for row in order), table[:, 0], table[:, 1:].astype(np.int32))


def _get(entry: Any, key: str, default: Any = None) -> Any:
    return entry.get(key, default) if isinstance(entry, dict) else None


def _is_number(value: Any, most: int = 2**62) -> bool:
    return type(value) is int and 0 <= value <= most


def _refuse(file: Path, kind: str, entry: Any, wanted: str) -> NoReturn:
    raise ConfigError(f'{file} has an odd {kind}: {entry!r:.120}', f'Each is {wanted}. Copy the file again.')
