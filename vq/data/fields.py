"""The fields of samples: how each is collated, and what a change of geometry does to it.

A dataset declares further fields, which a batch has in ``extra``: ``fields = {'depth': Field('stack', moves='mask')}``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from vq.core.errors import ConfigError, UserError, listing
from vq.interfaces import Field

NOTES = ('id', 'extra')  # of every sample, without a declaration
ROW = {'boxes': 4, 'points': 2}  # numbers in a row

FIELDS: Mapping[str, Field] = {
    'image': Field('image', moves='image'),
    'category': Field('stack', 'int64', optional=True),
    'text': Field('list', optional=True),
    'path': Field('list', optional=True),
    'boxes': Field('pad', 'float32', moves='boxes'),
    'box_categories': Field('pad', 'int64', rows_of='boxes'),
    'mask': Field('stack', moves='mask'),
    'points': Field('pad', 'float32', moves='points'),
    'tokens': Field('stack', 'int64', moves='cannot'),
    'latent': Field('stack', moves='cannot'),
}


def with_results(fields: Mapping[str, Field]) -> dict[str, Field]:
    """The fields, and for each field of points ``NAME_inside``, which transforms add."""
    inside = {
        f'{name}_inside': Field(field.collate, 'bool', rows_of=name if field.collate == 'pad' else None)
        for name, field in fields.items()
        if field.moves == 'points'
    }
    return {**fields, **inside}


STANDARD = with_results(FIELDS)
MOVING = frozenset(name for name, field in STANDARD.items() if field.moves is not None) - {'image'}


def all_fields(declared: Mapping[str, Field]) -> Mapping[str, Field]:
    """The standard fields and the declared ones. Of the standard mask a dataset can declare what a mirror exchanges."""
    if not declared:
        return STANDARD
    taken = sorted((STANDARD.keys() | set(NOTES) | {f'{name}_mask' for name in FIELDS}) & declared.keys())
    taken = [name for name in taken if not _is_standard(name, declared[name])]
    if taken:
        raise ConfigError(f'a dataset declares the field {taken[0]}, which samples have already', 'Give it another name.')
    found = {**STANDARD, **with_results(declared)}
    for name, field in declared.items():
        if field.rows_of is not None and getattr(found.get(field.rows_of), 'collate', '') != 'pad':
            raise ConfigError(
                f'the field {name} is declared with rows_of={field.rows_of!r}', 'Name a field that is declared to be padded.'
            )
    return found


def _is_standard(name: str, field: Field) -> bool:
    return name in FIELDS and dataclasses.replace(field, mirrored=FIELDS[name].mirrored) == FIELDS[name]


def refuse_unknown(name: str, fields: Mapping[str, Field], sample: str) -> NoReturn:
    """The error for a field without a declaration: it would be lost in a batch, and stay where it was in a crop."""
    raise UserError(
        f'the sample {sample} has the field {name}, which is not declared',
        f"Declare it in the class of the dataset: fields = {{'{name}': Field('stack')}}. Known fields are: "
        f'{listing(sorted(fields), 20)}.',
    )


def rows_in(name: str, field: Field, value: Any, sample: str) -> np.ndarray:
    """A padded field of a sample as an array (N, ...)."""
    array = np.asarray(value, field.dtype or ('float32' if field.moves in ROW else None))
    if field.moves in ROW:
        array = array.reshape(0, ROW[field.moves]) if not array.size else array
        if array.ndim != 2 or array.shape[1] != ROW[field.moves] or not np.isfinite(array).all():
            wanted = 'x1, y1, x2, y2' if field.moves == 'boxes' else 'x, y'
            raise UserError(
                f'{name} of {sample} are not finite numbers of the shape (N, {ROW[field.moves]}): they have {array.shape}',
                f'Give {wanted} of each, in pixels.',
            )
    if field.moves == 'boxes' and (array[:, 2:] < array[:, :2]).any():
        box = array[(array[:, 2:] < array[:, :2]).any(1)][0].tolist()
        raise UserError(f'{name} of {sample} have {box}, which ends before it begins', 'Give x1, y1, x2, y2, not a size.')
    if not array.ndim:
        raise UserError(f'{name} of {sample} is a number, and an array (N, ...) is needed', "Declare it with collate='stack'.")
    return array


def check_rows(name: str, count: int, owner: str, rows: int, sample: str) -> None:
    if count != rows:
        raise UserError(f'the sample {sample} has {rows} {owner} and {count} {name}', f'Give a row of {name} for each.')
