"""The condition of images to draw, from what a user asks; and of images that are learned, from a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vq.core.conditions import Condition
from vq.core.errors import ConfigError, UserError, listing
from vq.core.records import Batch
from vq.interfaces.conditions import Asked, Conditioner, Kind

NOUNS = {'classes': 'classes', 'text': 'texts', 'layout': 'layouts'}


def condition_of(
    asked: Asked, kinds: Sequence[Kind], classes: int, places: Sequence[int], device: torch.device
) -> Condition | None:
    """Image i has entry i mod n of the classes, of the texts and of the layouts. None: images without a condition.

    ``kinds``: what the model takes. To ask for another is an error. A negative text alone goes with the empty text.
    """
    if set(kinds) <= {'classes'}:
        return condition_of_classes(asked, classes, places, device)
    other = next((name for name in NOUNS if name not in kinds and getattr(asked, name) is not None), None)
    if other is not None:
        own = [f'--{kind}' + (', or text= in Python' if kind == 'text' else '') for kind in kinds]
        raise UserError(
            f'{NOUNS[other]} are asked for, and this model takes {listing(NOUNS[kind] for kind in kinds)}',
            f'Give {" or ".join(own)}.',
        )
    if asked.negative is not None and 'text' not in kinds:
        raise UserError('a negative text is given, and this model takes no texts', 'Leave it out.')
    given = {'text': asked.text, 'layout': asked.layout, 'classes': asked.classes, 'negative text': asked.negative}
    empty = next((name for name, value in given.items() if value is not None and not len(value)), None)
    if empty is not None:
        raise UserError(f'no {empty} is given', 'Give one or more.')
    text = [''] if asked.text is None and asked.negative is not None else asked.text
    parts: list[Condition | None] = (
        [] if asked.layout is None else [asked.layout.taken([place % len(asked.layout) for place in places])]
    )
    parts += [Condition(text=[text[place % len(text)] for place in places])] if text is not None else []
    parts += [condition_of_classes(Asked(asked.classes), classes, places, device)] if asked.classes is not None else []
    known = {name: value for part in parts if part is not None for name, value in vars(part).items() if value is not None}
    if asked.negative is not None:
        known['negative'] = [asked.negative[place % len(asked.negative)] for place in places]
    return Condition(**known).to(device) if known else None


def condition_of_classes(asked: Asked, classes: int, places: Sequence[int], device: torch.device) -> Condition | None:
    """Image i is of class ``asked.classes[i mod n]``, by default of all classes in turn. None without classes."""
    if asked.text is not None or asked.layout is not None or asked.negative is not None:
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


LACKING = {
    'classes': ('', 'none', 'Take a dataset with classes, or set conditioner to None.'),
    'text': ('reads texts', 'none', 'Take a dataset with texts, or override ``unpack`` of the task.'),
    'layout': (
        'reads layouts',
        'neither boxes nor masks',
        'Take a dataset with one of them, or override ``unpack`` of the task.',
    ),
}


def condition_in(batch: Batch, conditioner: Conditioner) -> Condition:
    """What a batch says of its images; an error if it says nothing that this kind of conditioner reads."""
    there = {
        'classes': batch.category is not None,
        'text': batch.text is not None,
        'layout': batch.boxes is not None or batch.mask is not None,
    }
    for kind in conditioner.kinds:
        if not there[kind]:
            does, nothing, hint = LACKING[kind]
            does = f'learns {conditioner.classes} classes' if kind == 'classes' else does
            raise ConfigError(f'{type(conditioner).__name__} {does}, and this dataset gives {nothing}', hint)
    return Condition.of(batch)
