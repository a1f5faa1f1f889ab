"""Applying a transform to a sample. A transform declares by its first parameter if it takes a sample or an image alone."""

from __future__ import annotations

import functools
import inspect
import random
import types
from collections.abc import Callable
from typing import Any, Literal

from vq.core.errors import UserError
from vq.data.fields import MOVING, all_fields
from vq.data.geometry import Movable
from vq.interfaces import Sample

Taken = Literal['sample', 'image', 'either']

FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)


def transformed(transform: Callable[..., Any], sample: Sample, stream: random.Random) -> Sample:
    """The sample after a transform. One that takes an image alone is an error for samples with more that would move."""
    function = transform.func if isinstance(transform, functools.partial) else transform
    taken = _taken(function) if isinstance(function, FUNCTIONS) else _taken(type(function).__call__, bound=False)
    others = [] if not sample.fields and MOVING.isdisjoint(sample) else _moving_besides_image(sample)
    if taken == 'sample' or (taken == 'either' and (others or sample.get('image') is None)):
        changed = transform(sample, stream)
        if isinstance(changed, Sample):
            return changed
        raise UserError(
            f'the transform {_name(function)} gave a {type(changed).__name__}', 'Return a sample: sample.but(image=...).'
        )
    if others:
        raise UserError(
            f'the transform {_name(function)} takes an image alone, and the sample {sample.get("id", "")} has {others[0]} too',
            f'Annotate its first parameter with Sample and move {others[0]} with the image: see CONTRIBUTING.md, A transform.',
        )
    return sample.but(image=transform(sample['image'], stream))


@functools.lru_cache(maxsize=64)
def _taken(function: Callable[..., Any], bound: bool = True) -> Taken:
    """What a transform takes: a sample if its first parameter is annotated with ``Sample``, or has no annotation and the name
    ``sample``; either if it is annotated with ``Movable``, as the transforms here are; otherwise an image (H, W, 3)."""
    try:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    except NameError:  # a name that is imported for type checkers only
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # a function of C without a signature
        return 'image'
    first = next(iter(parameters[0 if bound else 1 :]), None)
    if first is None or first.annotation is inspect.Parameter.empty:
        return 'sample' if first is not None and first.name == 'sample' else 'image'
    if first.annotation is Movable:
        return 'either'
    if isinstance(first.annotation, str):
        return 'sample' if first.annotation.rpartition('.')[2] == 'Sample' else 'image'
    return 'sample' if isinstance(first.annotation, type) and issubclass(first.annotation, Sample) else 'image'


def _moving_besides_image(sample: Sample) -> list[str]:
    """The fields that a change of geometry moves, or cannot move, and those that nobody declared."""
    fields = all_fields(sample.fields)
    return [
        name
        for name, value in sample.items()
        if name != 'image' and value is not None and name in fields and fields[name].moves is not None
    ]


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, '__name__', type(function).__name__)
