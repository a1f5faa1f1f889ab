"""Whether images hold what a layout asks for: boxes that a segmenter finds again, and what is classified in their crops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vq.core.conditions import Condition
from vq.data.regions import Regions

OVERLAP = 0.5  # intersection over union from which a box is found


def box_overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Boxes (N, 4) and (M, 4) x1, y1, x2, y2 -> intersection over union (N, M); 0 for boxes without area."""
    first, second = boxes.double()[:, None], others.double()[None]
    sides = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(min=0)
    inside = sides.prod(-1)
    areas = [(each[..., 2:] - each[..., :2]).clamp(min=0).prod(-1) for each in (first, second)]
    return inside / (areas[0] + areas[1] - inside).clamp(min=1e-12)


def answers(regions: Sequence[Regions], layout: Condition) -> Tensor:
    """(R,) fp64, for each box of a layout the IoU of the region that answers for it, 0 where none does. A region has the class
    of its box and answers for one box alone: the pairs with the largest overlap count first."""
    assert layout.boxes is not None and layout.box_categories is not None and layout.boxes_mask is not None
    rows = []
    for found, boxes, categories, there in zip(
        regions, layout.boxes.cpu(), layout.box_categories.cpu(), layout.boxes_mask.cpu(), strict=True
    ):
        overlaps = box_overlaps(boxes[there], found.boxes.cpu())
        overlaps[categories[there][:, None] != found.categories.cpu()[None]] = 0
        best = overlaps.new_zeros(len(overlaps))
        while overlaps.numel() and float(overlaps.max()) > 0:
            row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
            best[row] = overlaps[row, column]
            overlaps[row], overlaps[:, column] = 0, 0
        rows.append(best)
    return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.float64)


def found_again(regions: Sequence[Regions], layout: Condition, overlap: float = OVERLAP) -> float:
    """The share of boxes that a region answers for with an IoU of ``overlap`` or more. NaN without boxes."""
    return float((answers(regions, layout) >= overlap).double().mean())
