"""What images are learned or drawn for."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import torch
from torch import Tensor

from vq.core.records import Batch, to_float


@dataclasses.dataclass
class Condition:
    """One row per image, B in all. A field that is None says nothing. Generators and denoisers read what they know.

    ``null`` are the rows that are learned or drawn without a condition, whatever the other fields say. ``lost`` are those of
    each part of a mixture of P conditioners. ``negative`` is the text that rows without a condition are drawn with.
    """

    category: Tensor | None = None  # (B,) int64
    text: list[str] | None = None
    boxes: Tensor | None = None  # (B, M, 4) x1, y1, x2, y2 in pixels
    box_categories: Tensor | None = None  # (B, M) int64
    boxes_mask: Tensor | None = None  # (B, M) bool: the boxes that are there
    mask: Tensor | None = None  # (B, H, W) int64, a label for each pixel
    image: Tensor | None = None  # (B, 3, H, W) float in [-1, 1]
    null: Tensor | None = None  # (B,) bool
    lost: Tensor | None = None  # (B, P) bool
    negative: list[str] | None = None

    @classmethod
    def of(cls, batch: Batch, image: bool = False) -> Self:
        """The condition of the images of a batch. The image itself is one only if asked for."""
        named = ('category', 'text', 'boxes', 'box_categories', 'boxes_mask', 'mask')
        given = {name: getattr(batch, name, None) for name in named}
        return cls(**given, image=to_float(batch.image) if image else None)

    def __len__(self) -> int:
        return next((len(value) for value in vars(self).values() if value is not None), 0)

    def to(self, device: torch.device | str) -> Self:
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **moved)

    def taken(self, rows: list[int]) -> Self:
        """The rows with these numbers, in this order; a row can be taken several times."""
        taken: dict[str, Any] = {
            name: value[rows] if isinstance(value, Tensor) else [value[row] for row in rows]
            for name, value in vars(self).items()
            if value is not None
        }
        return dataclasses.replace(self, **taken)

    def without(self, rows: Tensor) -> Self:
        """The same, with ``rows`` (B,) bool without a condition as well."""
        return dataclasses.replace(self, null=rows if self.null is None else self.null | rows)

    def doubled(self) -> Self:
        """2 B rows: these, then the same without a condition. For guidance."""
        twice: dict[str, Any] = {
            name: torch.cat([value, value]) if isinstance(value, Tensor) else [*value, *value]
            for name, value in vars(self).items()
            if value is not None
        }
        known = next(value for value in twice.values() if isinstance(value, Tensor))
        empty = torch.arange(2 * len(self), device=known.device) >= len(self)
        whole = dataclasses.replace(self, **twice)
        return dataclasses.replace(whole, null=empty if whole.null is None else empty | whole.null)
