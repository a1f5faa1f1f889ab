"""The protocol of whatever draws images: generators of tokens, denoisers, and what comes after them.

``vq.sample`` and its sweeps, pictures during training, evaluation of drawn images, ``vq.load(...).sample`` and reports ask
this protocol, and know no class of task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeGuard

import torch

from vq.core.conditions import Condition
from vq.core.drawing import Drawn, Wanted
from vq.interfaces.conditions import Asked, Kind


def draws_images(task: object) -> TypeGuard[Draws]:
    """Whether a task has the protocol: by its class, so that no property is read."""
    return callable(getattr(type(task), 'draw', None))


class Setting(NamedTuple):
    """A setting of drawing: the value that a config has, None if that is not one value; and all values that it can have, where
    they are names."""

    value: float | int | str | bool | None
    choices: tuple[str, ...] = ()


def kinds_of(task: object) -> tuple[Kind, ...]:
    """All that a task takes as a condition; a task without ``kinds`` takes one thing at most."""
    found: tuple[Kind, ...] | None = getattr(task, 'kinds', None)
    asks: Kind | None = getattr(task, 'asks', None)
    return found if found is not None else () if asks is None else (asks,)


class Draws(Protocol):
    """A task that draws."""

    asks: Kind | None  # what it takes as a condition; None: it draws without one
    classes: int  # categories are below it; 0 for tasks that ask for something else, or nothing
    codebooks: tuple[int, ...]  # of the tokens that it draws; empty for tasks that draw none
    draws: tuple[str, ...]  # names of the pictures that validation draws for each image

    def draw(self, wanted: Wanted) -> Drawn:
        """New images, each from random streams of its own, so that batches, ranks and restarts change no byte."""
        raise NotImplementedError

    def condition(self, asked: Asked, places: Sequence[int], device: torch.device) -> Condition | None:
        """The condition of the images with these numbers; an error if the task does not take what is asked."""
        raise NotImplementedError

    @classmethod
    def settings(cls, config: Mapping[str, Any]) -> dict[str, Setting]:
        """The settings that ``set_drawing`` takes for the config of a task."""
        raise NotImplementedError

    @classmethod
    def set_drawing(cls, config: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Put settings of the command line (guidance, temperature, ...) into the config of the task. Returns all settings
        that the images depend on, as plain data; an error for settings that this task does not have."""
        raise NotImplementedError

    def drawing(self, settings: Mapping[str, Any], described: Mapping[str, Any] | None = None) -> Self:
        """This task, with other settings for its next draws; it shares all its parts. ``described``: what ``set_drawing``
        returned, which is changed by the settings; without it, the settings replace those of the config."""
        raise NotImplementedError
