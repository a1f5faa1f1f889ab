"""Conditioners: from what is wanted of an image to what a network takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Self

from torch import Tensor, nn

from vq.core.conditions import Condition
from vq.interfaces.pretrained import Pretrained

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
    numbers: int = 1  # of a row that ``dropped`` takes

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """All that it reads: a mixture has several."""
        return (self.kind,)

    def forward(self, condition: Condition | None, rows: int) -> Conditioned:
        """Rows without a condition, all if ``condition`` is None, get the null of this conditioner."""
        raise NotImplementedError

    def dropped(self, condition: Condition | None, uniforms: Tensor) -> Condition | None:
        """In training, rows whose number (B,) in [0, 1) is below ``drop`` lose their condition. A mixture takes several
        numbers for each row, (B, ``numbers``)."""
        if condition is None or not self.training or not self.drop:
            return condition
        return condition.without(uniforms < self.drop)


class Asked(NamedTuple):
    """What a user asks images of, to be taken in turn: image i takes entry i mod n. None: the model's own choice."""

    classes: Sequence[int] | None = None
    text: Sequence[str] | None = None
    layout: Condition | None = None  # boxes and their categories, a row per layout
    negative: Sequence[str] | None = None  # texts in place of that of no condition, which guidance leads away from


class TextEncoder(nn.Module, Pretrained):
    """Texts -> a vector for each of their tokens. Frozen: in eval mode, without gradients."""

    dim: int  # channels of a vector
    file: str  # of its weights, below the folder of pretrained files

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """(B, L, dim), and the entries that are there, (B, L) bool; None: all."""
        raise NotImplementedError

    def pretrained_files(self) -> list[Path]:
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        return super().train(False)
