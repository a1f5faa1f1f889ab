"""The condition of images to draw, from what a user asks; and of images that are learned, from a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vq.core.conditions import Condition
from vq.core.errors import ConfigError, UserError
from vq.core.records import Batch
from vq.interfaces.conditions import Asked, Conditioner, Kind

NOUNS = {'classes': 'classes', 'text': 'texts', 'layout': 'layouts'}


def condition_of(
    asked: Asked, kind: Kind | None, classes: int, places: Sequence[int], device: torch.device
) -> Condition | None:
    """Image i has entry i mod n of the classes, the texts or the layouts. None: images without a condition.

    ``kind``: what the model takes. To ask for another is an error.
    """
    if kind in (None, 'classes'):
        return condition_of_classes(asked, classes, places, device)
    other = next((name for name in NOUNS if name != kind and getattr(asked, name) is not None), None)
    if other is not None:
        raise UserError(
            f'{NOUNS[other]} are asked for, and this model takes {NOUNS[kind]}',
            f'Give --{kind}, or text= in Python.' if kind == 'text' else f'Give --{kind}.',
        )
    whole = asked.layout if kind == 'layout' else None if asked.text is None else Condition(text=[*asked.text])
    if whole is None:
        return None
    if not len(whole):
        raise UserError(f'no {kind} is given', 'Give one or more.')
    return whole.taken([place % len(whole) for place in places]).to(device)


def condition_of_classes(asked: Asked, classes: int, places: Sequence[int], device: torch.device) -> Condition | None:
    """Image i is of class ``asked.classes[i mod n]``, by default of all classes in turn. None without classes."""
    if asked.text is not None or asked.layout is not None:
        raise UserError(
            f'{"a text" if asked.layout is None else "a layout"} is asked for, and this generator takes classes only',
            'Leave it out, or load a generator that was trained on it.',
        )
    chosen = [*range(classes)] if asked.classes is None else [*asked.classes]
    wrong = [number for number in chosen if not 0 <= number < classes]
    if wrong or (asked.classes is not None and not chosen):
        raise UserError(
            f'classes {wrong or "()"} are requested, and the generator has {classes}',
            f'They are 0 to {classes - 1}.' if classes else 'It is unconditional: leave --classes out.',
        )
    if not chosen:
        return None
    return Condition(torch.tensor([chosen[place % len(chosen)] for place in places]).to(device))


def condition_in(batch: Batch, conditioner: Conditioner) -> Condition:
    """What a batch says of its images; an error if it says nothing that this kind of conditioner reads."""
    if conditioner.kind == 'classes' and batch.category is None:
        raise ConfigError(
            f'the conditioner learns {conditioner.classes} classes, and this dataset gives none',
            'Take a dataset with classes, or set conditioner to None.',
        )
    if conditioner.kind == 'text' and batch.text is None:
        raise ConfigError(
            f'{type(conditioner).__name__} reads texts, and this dataset gives none',
            'Take a dataset with texts, or override ``unpack`` of the task.',
        )
    if conditioner.kind == 'layout' and batch.boxes is None and batch.mask is None:
        raise ConfigError(
            f'{type(conditioner).__name__} reads layouts, and this dataset gives neither boxes nor masks',
            'Take a dataset with one of them, or override ``unpack`` of the task.',
        )
    return Condition.of(batch)
