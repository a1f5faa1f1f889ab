"""From boxes and maps of labels to the cells of a latent."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.interfaces.conditions import Layout

WAVES = 8  # of a place, along each axis
PLACES = WAVES**2  # numbers of a place within a box


def box_cells(boxes: Tensor, height: int, width: int) -> Tensor:
    """Boxes (..., 4) x, y, width, height, in units of the image -> (..., 4) int64: first row, end row, first and end column.

    first = min(floor(y H), H - 1),  end = first + max(1, ceil(height H)),  columns likewise  (LayoutDiffuse). A box of no size
    has one cell. Nothing is cut: an end can lie behind the map. Products are fp32.
    """
    x, y, across, down = boxes.float().unbind(-1)
    return torch.stack([*_along(y, down, height), *_along(x, across, width)], dim=-1)


def _along(start: Tensor, extent: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    first = (start * cells).floor().long().clamp(max=cells - 1)
    return first, first + (extent * cells).ceil().long().clamp(min=1)


def covered(boxes: Tensor, height: int, width: int) -> Tensor:
    """(..., 4) -> (..., height, width) bool: the cells of each box."""
    top, bottom, left, right = (value[..., None, None] for value in box_cells(boxes, height, width).unbind(-1))
    rows = torch.arange(height, device=boxes.device)[:, None]
    columns = torch.arange(width, device=boxes.device)
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def covers(layout: Layout, height: int, width: int) -> Tensor:
    """(B, M, height * width) bool: the cells of the boxes that are there."""
    assert layout.boxes is not None and layout.there is not None
    return covered(layout.boxes, height, width).flatten(2) & layout.there[..., None]


def waves_in(layout: Layout, height: int, width: int) -> tuple[Tensor, Tensor]:
    """cos(k pi v) of rows, (B, M, height, WAVES), and cos(k pi u) of columns, (B, M, width, WAVES); k = 0, 1, ....

    v and u tell where the middle of a row or column lies within a box, cut to [0, 1]. fp32 or more.
    """
    assert layout.boxes is not None
    boxes = layout.boxes.to(torch.promote_types(layout.boxes.dtype, torch.float32))
    x, y, across, down = (value[..., None] for value in boxes.unbind(-1))
    k = torch.pi * torch.arange(WAVES, dtype=x.dtype, device=x.device)

    def along(start: Tensor, extent: Tensor, cells: int) -> Tensor:
        middles = (torch.arange(cells, dtype=x.dtype, device=x.device) + 0.5) / cells
        return (((middles - start) / extent.clamp(min=1e-6)).clamp(0, 1)[..., None] * k).cos()

    return along(y, down, height), along(x, across, width)


def places_of(rows: Tensor, columns: Tensor) -> Tensor:
    """The products of the waves (..., WAVES) of a row and of a column: (..., PLACES)."""
    return (rows[..., :, None] * columns[..., None, :]).flatten(-2)


def labels_at(labels: Tensor, height: int, width: int) -> Tensor:
    """Labels (B, H, W) of the middle of each cell -> (B, height, width)."""
    rows, columns = (
        (torch.arange(cells, device=labels.device) * 2 + 1) * side // (2 * cells)
        for cells, side in ((height, labels.shape[1]), (width, labels.shape[2]))
    )
    return labels[:, rows[:, None], columns]


def class_map(layout: Layout, height: int, width: int) -> Tensor:
    """(B, height * width, D): what lies at each cell. With labels the vector of its class; with boxes the mean over the boxes
    that cover it, and the vector of nothing where none does."""
    if layout.labels is not None:
        return layout.table[labels_at(layout.labels, height, width).flatten(1)]
    assert layout.categories is not None
    inside = covers(layout, height, width)
    count = inside.sum(1)[..., None]  # (B, N, 1)
    total = inside.to(layout.table.dtype).transpose(1, 2) @ layout.table[layout.categories]
    return torch.where(count > 0, total / count.clamp(min=1), layout.table[-1])
