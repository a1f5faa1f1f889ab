"""Conditioners: from what is wanted of an image to what a network takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from vq.core.conditions import Condition

Kind = Literal['classes', 'text', 'layout']
FORMS = ('vector', 'sequence', 'maps', 'layout')  # of a condition, as networks take it


class Layout(NamedTuple):
    """What lies where: boxes with classes, or a label for each pixel. Labels and classes are rows of ``table``."""

    table: Tensor  # (K + 1, D) vectors of the classes, and in the last row that of nothing
    boxes: Tensor | None = None  # (B, M, 4) x, y, width, height, in units of the image
    categories: Tensor | None = None  # (B, M) int64
    there: Tensor | None = None  # (B, M) bool: the boxes that are there
    labels: Tensor | None = None  # (B, H, W) int64


class Conditioned(NamedTuple):
    """What networks take. A tuple: see ``Predicted``."""

    vector: Tensor | None = None  # (B, D), for modulation
    sequence: Tensor | None = None  # (B, L, D), for attention
    sequence_mask: Tensor | None = None  # (B, L) bool: the entries that are there
    maps: Tensor | None = None  # (B, D, h, w), added to the latent or concatenated with it
    layout: Layout | None = None  # for attention within regions


class Conditioner(nn.Module):
    """A condition -> vectors, sequences, or maps. It owns what rows without a condition get, and how often training drops
    the condition of a row.

    ``kind``: what ``vq.sample`` asks for: --classes, --text, or --layout FILE.
    """

    kind: ClassVar[Kind]
    classes: int = 0  # categories are below it; 0 for conditioners of something else
    drop: float = 0.0  # share of rows that training learns without a condition

    def forward(self, condition: Condition | None, rows: int) -> Conditioned:
        """Rows without a condition, all if ``condition`` is None, get the null of this conditioner."""
        raise NotImplementedError

    def dropped(self, condition: Condition | None, uniforms: Tensor) -> Condition | None:
        """In training, rows whose number (B,) in [0, 1) is below ``drop`` lose their condition."""
        if condition is None or not self.training or not self.drop:
            return condition
        return condition.without(uniforms < self.drop)


class Asked(NamedTuple):
    """What a user asks images of, to be taken in turn: image i takes entry i mod n. None: the model's own choice."""

    classes: Sequence[int] | None = None
    text: Sequence[str] | None = None
    layout: Condition | None = None  # boxes and their categories, a row per layout
