"""Packed images: the samples of another dataset in a few large files, read through memory maps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vq.core.errors import ConfigError, UserError, listing
from vq.core.random import key_of
from vq.core.records import Batch
from vq.data import transforms
from vq.data.collate import image_rows
from vq.data.datasets.base import ImageDataset, Transform
from vq.data.decode import PIXEL_LIMIT, Backend, BadImage, decode_image, prepare_backend
from vq.data.geometry import Crop, Geometry
from vq.data.pixels import Box, Resampler, check_resampler, crop
from vq.data.remote_root import place
from vq.interfaces import Field, Sample
from vq.io import remote
from vq.io.beton import COMMAND, refuse_beton
from vq.io.manifest import NAME
from vq.io.packed import COLUMNS, FILE, KIND, Row, row_of, splits_in, unpack_fields
from vq.io.shard import Shard
from vq.io.shard_set import damaged_shard
from vq.io.shards import ShardSet
from vq.registries import VQDatasetRegistry


@VQDatasetRegistry.register_()
class PackedDataset(ImageDataset):
    """The split ``root/SPLIT`` of what ``vq data pack --output-folder ROOT`` wrote.

    Samples have the ids, classes and fields of the dataset that was packed, and its pixels, at the size of packing. Any order
    is fast. Each row that is read is compared with its CRC-32, so a damaged row is an error and never a sample.

    ``resampler`` and ``decode_to`` are those of ``FileDataset``; ``decode_to`` is for images that are stored as JPEG.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = 'train',
        transform: Transform = None,
        backend: Backend = 'pillow',
        name: str | None = None,
        pixel_limit: int = PIXEL_LIMIT,
        resampler: Resampler = 'pillow',
        decode_to: int | None = None,
    ) -> None:
        check_resampler(resampler)
        split = 'validation' if split == 'val' else split
        super().__init__(name or Path(root).name or 'packed', split, transform)
        self.root, self.pixel_limit = place(root), pixel_limit
        self.backend: Backend = backend
        self.resampler, self.decode_to = resampler, decode_to
        self._boxes: tuple[Transform, dict[tuple[int, int], Box | None]] = transform, {}  # of ``_box``, by size

    @functools.cached_property
    def shards(self) -> ShardSet:
        prepare_backend(self.backend)
        folder = self.root / self.split
        if not (folder / NAME).is_file():
            raise self._missing()
        shards = ShardSet(folder, by_row=True)
        lacking = COLUMNS - shards.manifest.columns.keys()
        if shards.manifest.kind != KIND or lacking:
            raise UserError(
                f'{folder} holds {shards.manifest.kind}, not packed images', f'Give the output folder of: {COMMAND}'
            )
        return shards

    def _missing(self) -> UserError:
        if not remote.is_remote(str(self.root)):
            refuse_beton(self.root)
        there = splits_in(self.root)
        if (self.root / NAME).is_file():
            return ConfigError(f'{self.root} is one split of a packed dataset', f'Set data_root to {self.root.parent}.')
        what = f'it has {listing(there)}' if there else 'it is missing' if not self.root.exists() else 'it has no split'
        return ConfigError(
            f"{self.root} has no packed images of the split '{self.split}': {what}",
            f'Write them: {COMMAND}, and set data_root to O.',
        )

    @functools.cached_property
    def categories(self) -> Sequence[str] | None:  # type: ignore[override]
        return self._names('categories')

    @functools.cached_property
    def label_names(self) -> Sequence[str] | None:  # type: ignore[override]
        return self._names('label_names')

    def _names(self, which: str) -> Sequence[str] | None:
        found = self.shards.manifest.producer.get(which)
        return None if found is None else tuple(map(str, found))

    @functools.cached_property
    def fields(self) -> Mapping[str, Field]:  # type: ignore[override]
        declared = self.shards.manifest.producer.get('fields') or {}
        try:
            return {name: Field(**{key: _frozen(value) for key, value in about.items()}) for name, about in declared.items()}
        except (TypeError, AttributeError) as error:
            where = self.root / self.split / NAME
            raise UserError(f"{where} cannot be read: 'fields' {error}", 'Write the set again.') from error

    def __len__(self) -> int:
        return len(self.shards)

    def row(self, index: int) -> Row:
        """One row, compared with its checksum."""
        return row_of(*self.shards.find(index))

    def id_of(self, index: int) -> str:
        return self.row(index).id

    def category_of(self, index: int) -> int | None:
        category = self.row(index).category
        return None if category < 0 else category

    def read(self, index: int) -> np.ndarray:
        shard, place = self.shards.find(index)
        return self._image(row_of(shard, place), shard, place)

    def original(self, index: int) -> Sample:
        shard, place = self.shards.find(index)
        row = row_of(shard, place)
        image = self._image(row, shard, place)
        return self.make_sample(
            image=image, id=row.id, category=None if row.category < 0 else row.category, **self._others(row, shard, place)
        )

    def load_batch(self, indices: Sequence[int], reading: Callable[[int], object] = lambda index: None) -> Batch | None:
        """Rows of images that the transform only crops, or leaves as they are, to one size: one copy of each."""
        found = [self.shards.find(index) for index in indices]
        boxes = [self._box(_size(shard, number)) for shard, number in found]
        first = boxes[0]
        if self.decode_to is not None or first is None or any(box is None or box[2:] != first[2:] for box in boxes):
            return None
        image = image_rows(len(indices), *first[2:])
        ids, labels = [], []
        for pixels, index, (shard, number), box in zip(image.permute(0, 2, 3, 1).numpy(), indices, found, boxes, strict=True):
            reading(index)
            row = row_of(shard, number)
            if row.fields or box is None:
                return None
            pixels[:] = crop(self._image(row, shard, number), box)
            ids.append(row.id)
            labels.append(row.category)
        return Batch(
            image=image,
            id=ids,
            key=torch.tensor([key_of(name) for name in ids]),
            category=None if min(labels) < 0 else torch.tensor(labels),
        )

    def _box(self, size: tuple[int, int]) -> Box | None:
        """The part of an image of this size that the transform gives as it is; None if it does more than cropping."""
        if self._boxes[0] is not self.transform:
            self._boxes = self.transform, {}
        known = self._boxes[1]
        if size not in known:
            known[size] = self._box_of(size)
        return known[size]

    def _box_of(self, size: tuple[int, int]) -> Box | None:
        whole = 0, 0, *size
        if self.transform is None:
            return whole
        if not isinstance(self.transform, functools.partial) or self.transform.func is not transforms.none:
            return None
        steps = transforms.centred(Geometry(size, size), self.transform.keywords['image_size']).steps
        if not all(isinstance(step, Crop) for step in steps):
            return None
        return steps[0].box if steps and isinstance(steps[0], Crop) else whole

    def size_of(self, index: int) -> tuple[int, int]:
        return _size(*self.shards.find(index))

    def encoded(self, index: int) -> bytes | None:
        row = self.row(index)
        return bytes(row.image) if row.form == FILE and self.decode_to is None else None

    def fingerprint(self) -> str:
        return self.shards.manifest.fingerprint()

    def _image(self, row: Row, shard: Shard, place: int) -> np.ndarray:
        """(H, W, 3). Pixels are a view of the file, which cannot be written to."""
        if row.form != FILE:
            return np.asarray(row.image).reshape(*row.size, 3)
        try:
            return decode_image(bytes(row.image), self.backend, self.pixel_limit, self.decode_to)
        except BadImage as error:
            raise BadImage(f'{shard.path}, row {place} ({row.id})', error.reason) from error

    def _others(self, row: Row, shard: Shard, place: int) -> dict[str, Any]:
        try:
            return unpack_fields(row.fields)
        except ValueError as error:
            raise damaged_shard(shard.path, f'row {place} ({row.id}): {error}') from error


def _size(shard: Shard, number: int) -> tuple[int, int]:
    """(height, width) of a row."""
    height, width = shard.arrays['size'][number].tolist()
    return height, width


def _frozen(value: Any) -> Any:
    """Tuples in place of the lists of JSON."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
