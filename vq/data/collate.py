"""Collating samples into a batch, each field as it is declared."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from vq.core.errors import UserError
from vq.core.random import key_of
from vq.core.records import Batch
from vq.data.fields import NOTES, all_fields, check_rows, refuse_unknown, rows_in
from vq.data.slots import shared_bytes
from vq.interfaces import Field, Sample

Joined = dict[str, Any]  # field of the batch -> value

OF_BATCH = {field.name for field in dataclasses.fields(Batch)}


def image_rows(count: int, height: int, width: int) -> Tensor:
    """Memory for the images of a batch: (B, 3, H, W) uint8, which lies as (B, H, W, 3), as decoders give pixels.

    Copying an image into it is one move per row of pixels; ``Batch.to`` brings the order that models take, on the device. In a
    worker it is shared memory, of a slot if one is free.
    """
    size = count * height * width * 3
    flat = torch.empty(size, dtype=torch.uint8) if get_worker_info() is None else shared_bytes(size)
    return flat.view(count, height, width, 3).permute(0, 3, 1, 2)


class Rows:
    """The images of a batch, each copied as soon as it is loaded.

    Then it is still in the cache of the processor, and its memory is used again for the next one: with compressed images this
    takes half of the time of copying them in the end.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._joined: Tensor | None = None
        self._views: list[np.ndarray] = []

    def keep(self, sample: Sample) -> Sample:
        """The sample with its image in the next row; the sample as it is if the image does not fit there."""
        image = sample.get('image')
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            return sample
        if self._joined is None:
            self._joined = image_rows(self._count, *image.shape[:2])
        if image.shape[:2] != self._joined.shape[2:]:
            return sample
        view = self._joined[len(self._views)].numpy().transpose(1, 2, 0)  # (3, H, W) -> (H, W, 3)
        view[:] = image
        self._views.append(view)
        return sample.but(image=view)

    def joined(self, column: Sequence[Any]) -> Tensor | None:
        """The images of a batch if they are these rows, otherwise None."""
        if self._joined is None or len(column) != len(self._views):
            return None
        return self._joined[: len(column)] if all(map(operator.is_, column, self._views)) else None


def collate(samples: Sequence[Sample], fields: Mapping[str, Field] | None = None, rows: Rows | None = None) -> Batch:
    """The default ``collate``, for datasets without a ``collate`` method.

    ``rows``: where images are already. ``fields``: the declared ones; None: those that the first sample knows. Each is in
    ``extra`` of the batch, and so are the entries of the samples' ``extra``, as a list per name.
    """
    declared = getattr(samples[0], 'fields', {}) if fields is None else fields
    known, ids = all_fields(declared), [sample['id'] for sample in samples]
    joined: Joined = {}
    on_host = []
    for name in _names(samples, known):
        column = [sample.get(name) for sample in samples]
        if not _complete(name, known[name], ids, column):
            continue
        whole = rows.joined(column) if rows is not None and name == 'image' else None
        made = {name: whole} if whole is not None else JOINS[known[name].collate](name, known[name], ids, column)
        joined |= made
        on_host += [] if known[name].device else list(made)
    _check_rows(joined, known, samples)
    extras = [sample.get('extra') or {} for sample in samples]
    notes: Joined = {name: [extra.get(name) for extra in extras] for name in sorted(set().union(*extras))}
    own = {name: value for name, value in joined.items() if name not in OF_BATCH}
    if both := sorted(notes.keys() & own.keys()):
        raise UserError(f'samples have {both[0]} as a field and in extra', 'Give one of them another name.')
    return Batch(
        **{'image': None, **{name: value for name, value in joined.items() if name in OF_BATCH}},
        id=ids,
        key=torch.tensor([key_of(name) for name in ids]),
        extra={**notes, **own},
        on_host=frozenset(on_host),
    )


def _names(samples: Sequence[Sample], known: Mapping[str, Field]) -> list[str]:
    """The fields of the samples, in the order of their declarations."""
    present = set().union(*samples)
    for name in sorted(present.difference(known, NOTES)):
        refuse_unknown(name, known, next(sample['id'] for sample in samples if name in sample))
    return [name for name in known if name in present]


def _complete(name: str, field: Field, ids: list[str], column: list[Any]) -> bool:
    """Whether all samples have the field; an error if only some have it, unless it is optional."""
    lacking = [sample for sample, value in zip(ids, column, strict=True) if value is None]
    if lacking and len(lacking) < len(ids) and not field.optional:
        having = next(sample for sample, value in zip(ids, column, strict=True) if value is not None)
        raise UserError(
            f'in one batch, {having} has {name} and {lacking[0]} has none',
            f'Give every sample {name}'
            + (', an empty array (0, ...) if there are none.' if field.collate == 'pad' else ', or none of them.'),
        )
    return not lacking


def _images(name: str, field: Field, ids: list[str], column: list[Any]) -> Joined:
    for sample, image in zip(ids, column, strict=True):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            what = f'{image.dtype} {image.shape}' if isinstance(image, np.ndarray) else type(image).__name__
            raise UserError(
                f'the {name} of {sample} is {what}, and a uint8 array (H, W, 3) is needed',
                'Correct the transform or the dataset that made it.',
            )
    height, width = column[0].shape[:2]
    for sample, image in zip(ids, column, strict=True):
        if image.shape != column[0].shape:
            raise UserError(
                f'images of different sizes in one batch: {ids[0]} is {width} x {height}, '
                f'{sample} is {image.shape[1]} x {image.shape[0]}',
                "Add a transform to the dataset, such as dict(type='VQTransformRegistry.none', image_size=256).",
            )
    joined = image_rows(len(column), height, width)
    pixels = joined.permute(0, 2, 3, 1).numpy()
    for row, image in enumerate(column):
        pixels[row] = image  # the only copy
    return {name: joined}


def _stack(name: str, field: Field, ids: list[str], column: list[Any]) -> Joined:
    if all(isinstance(value, int | float | np.number) for value in column):
        return {name: _tensor(name, np.asarray(column), field)}
    arrays = [np.asarray(value) for value in column]
    for sample, array in zip(ids, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise UserError(
                f'{name} of different shapes in one batch: {arrays[0].shape} of {ids[0]}, {array.shape} of {sample}',
                'Add a transform to the dataset that makes images of one size.'
                if field.moves == 'mask'
                else "Declare the field with collate='pad' or 'list'.",
            )
    return {name: _tensor(name, np.stack(arrays), field)}


def _pad(name: str, field: Field, ids: list[str], column: list[Any]) -> Joined:
    arrays = [rows_in(name, field, value, sample) for sample, value in zip(ids, column, strict=True)]
    shapes = {array.shape[1:]: sample for sample, array in zip(ids, arrays, strict=True)}
    if len(shapes) > 1:
        (first, one), (second, other) = list(shapes.items())[:2]
        raise UserError(
            f'rows of {name} have different shapes in one batch: {first} of {one}, {second} of {other}',
            "Give rows of one shape, or declare the field with collate='list'.",
        )
    lengths = np.array([len(array) for array in arrays])
    joined = np.zeros((len(arrays), lengths.max(), *arrays[0].shape[1:]), np.result_type(*arrays))
    for row, array in enumerate(arrays):
        joined[row, : len(array)] = array
    made: Joined = {name: _tensor(name, joined, field)}
    if field.rows_of is None:
        made[f'{name}_mask'] = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None])
    return made


def _list(name: str, field: Field, ids: list[str], column: list[Any]) -> Joined:
    return {name: column}


JOINS: dict[str, Callable[[str, Field, list[str], list[Any]], Joined]] = {
    'image': _images,
    'stack': _stack,
    'pad': _pad,
    'list': _list,
}


def _tensor(name: str, array: np.ndarray, field: Field) -> Tensor:
    if array.dtype.kind not in 'biufc':
        raise UserError(f'{name} is {array.dtype}, which no tensor holds', "Declare the field with collate='list'.")
    return torch.from_numpy(array if field.dtype is None else array.astype(field.dtype, copy=False))


def _check_rows(joined: Joined, known: Mapping[str, Field], samples: Sequence[Sample]) -> None:
    for name in joined:
        owner = known[name].rows_of if name in known else None
        if owner is not None and owner in joined:
            for sample in samples:
                check_rows(name, len(sample[name]), owner, len(sample[owner]), sample['id'])
