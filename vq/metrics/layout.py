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


def found_again(regions: Sequence[Regions], layout: Condition, overlap: float = OVERLAP) -> float:
    """The share of the boxes of a layout with a region of the same class whose box overlaps by ``overlap`` or more. A region
    answers for one box: the pairs with the largest overlap count first. NaN without boxes."""
    assert layout.boxes is not None and layout.box_categories is not None and layout.boxes_mask is not None
    right, total = 0, int(layout.boxes_mask.sum())
    for found, boxes, categories, there in zip(
        regions, layout.boxes.cpu(), layout.box_categories.cpu(), layout.boxes_mask.cpu(), strict=True
    ):
        overlaps = box_overlaps(boxes[there], found.boxes.cpu())
        overlaps[categories[there][:, None] != found.categories.cpu()[None]] = 0
        while overlaps.numel() and float(overlaps.max()) >= overlap:
            row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
            overlaps[row], overlaps[:, column] = 0, 0
            right += 1
    return right / total if total else float('nan')
