"""The condition of images to draw, from what a user asks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vq.core.conditions import Condition
from vq.core.errors import UserError
from vq.interfaces.conditions import Asked


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
