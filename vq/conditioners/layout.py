"""Layouts: boxes with their classes, and maps of labels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.specs import ImageSize, size_of
from vq.interfaces import Conditioned, Conditioner
from vq.interfaces.conditions import Kind, Layout
from vq.registries import VQConditionerRegistry


class LayoutConditioner(Conditioner):
    """A table of class vectors (labels + 1, layout_dim), of which the last is that of nothing.

    ``drop``: share of rows that training learns without their layout, which guidance needs. ``std``: of initial vectors.
    """

    kind: ClassVar[Kind] = 'layout'
    added: ClassVar[tuple[str, ...]] = ('table',)

    def __init__(self, labels: int, layout_dim: int, drop: float, std: float) -> None:
        super().__init__()
        if labels < 1 or layout_dim < 1 or not 0 <= drop <= 1:
            raise ConfigError(
                f'labels is {labels}, layout_dim {layout_dim} and drop {drop}',
                'Give 1 class and 1 channel or more, and a share from 0 to 1.',
            )
        self.labels, self.layout_dim, self.drop = labels, layout_dim, drop
        self.table = nn.Embedding(labels + 1, layout_dim)
        nn.init.normal_(self.table.weight, std=std)


@VQConditionerRegistry.register_()
class BoxConditioner(LayoutConditioner):
    """Any number of boxes per image, with classes below ``labels`` -> what lies where, for ``RegionAttention``.

    Boxes are in pixels of an image of ``image_size``. A row without a condition has no box.
    """

    def __init__(self, labels: int, layout_dim: int, image_size: ImageSize, drop: float = 0.1, std: float = 0.02) -> None:
        super().__init__(labels, layout_dim, drop, std)
        self.image_size = size_of(image_size)

    def forward(self, condition: Condition | None, rows: int) -> Conditioned:
        device = self.table.weight.device
        if condition is None or condition.boxes is None:
            none = torch.zeros(rows, 1, dtype=torch.bool, device=device)
            layout = Layout(self.table.weight, torch.zeros(rows, 1, 4, device=device), none.long(), none)
            return Conditioned(layout=layout)
        assert condition.box_categories is not None and condition.boxes_mask is not None
        height, width = self.image_size
        left, top, right, bottom = condition.boxes.float().unbind(-1)
        boxes = torch.stack([left / width, top / height, (right - left) / width, (bottom - top) / height], dim=-1)
        there = condition.boxes_mask
        there = there if condition.null is None else there & ~condition.null[:, None]
        return Conditioned(layout=Layout(self.table.weight, boxes, condition.box_categories, there))


@VQConditionerRegistry.register_()
class SegmentationConditioner(LayoutConditioner):
    """A label below ``labels`` for each pixel -> what lies where, for ``RegionAttention(variant='segmentation')``.

    ``ignored``: the label of pixels of which nothing is known. A row without a condition has no others.
    """

    def __init__(self, labels: int, layout_dim: int, ignored: int = 255, drop: float = 0.1, std: float = 0.02) -> None:
        super().__init__(labels, layout_dim, drop, std)
        if 0 <= ignored < labels:
            raise ConfigError(f'ignored is {ignored}, and classes are below {labels}', 'Give a number that is no class.')
        self.ignored = ignored

    def forward(self, condition: Condition | None, rows: int) -> Conditioned:
        nothing = self.labels
        if condition is None or condition.mask is None:
            labels = torch.full((rows, 1, 1), nothing, device=self.table.weight.device)
            return Conditioned(layout=Layout(self.table.weight, labels=labels))
        labels = condition.mask.long()
        labels = torch.where(labels == self.ignored, nothing, labels)
        if condition.null is not None:
            labels = torch.where(condition.null[:, None, None], nothing, labels)
        return Conditioned(layout=Layout(self.table.weight, labels=labels))
