"""What is wanted of whatever draws images, and what it gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from vq.core.conditions import Condition

# Told of each step: (steps that are done, steps in all or None, what makes images of this state or None). What it raises stops
# the drawing.
Watch: TypeAlias = Callable[[int, int | None, Callable[[], Tensor] | None], None]


@dataclasses.dataclass
class Wanted:
    """The images to draw: their numbers, the seed, the condition, and tokens to keep.

    Every image has random streams of its own, derived from ``seed`` and its number: see sampling/.
    """

    ids: list[int]  # one per image, B in all
    seed: int
    condition: Condition | None = None  # on the device; None: images without a condition
    given: Tensor | None = None  # (B, *tokens.shape) int64: tokens to keep where ``keep`` is True
    keep: Tensor | None = None  # (*tokens.shape) bool
    watch: Watch | None = None

    @property
    def category(self) -> Tensor | None:
        """The classes (B,), if these are the condition."""
        return None if self.condition is None else self.condition.category


@dataclasses.dataclass
class Drawn:
    """New images, or what they are made of. ``history`` are the states on the way as images (B, 3, H, W) float, the last one
    that of the result, for those that record them."""

    tokens: Tensor | None = None  # (B, *tokens.shape) int64
    latents: Tensor | None = None  # (B, C, *cells), as decoders take them
    decode: Callable[[], Tensor] | None = None  # makes the images; None: there is no decoder
    history: list[Tensor] = dataclasses.field(default_factory=list)

    def images(self) -> Tensor | None:
        """(B, 3, H, W) float in [-1, 1], computed now: a caller can choose when, and on which stream."""
        return None if self.decode is None else self.decode()
