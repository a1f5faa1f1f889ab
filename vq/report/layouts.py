"""Layouts of a data set beside what a model draws of them, with boxes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.random import python_stream
from vq.data.collate import collate
from vq.data.survey.drawing import fit, with_shapes
from vq.interfaces import Sample
from vq.io.pictures import grid, save_png
from vq.metrics.layout import found_again
from vq.report.images import open_split
from vq.tasks.image_segmentation.loaded import LoadedSegmenter
from vq.tasks.loaded import LoadedGenerator

SHOWN, CELL = 8, 160  # images of a picture, and pixels of each


def draw_split(
    drawing: LoadedGenerator, segmenter: LoadedSegmenter, described: Mapping[str, Any], count: int, seed: int, file: Path
) -> tuple[float, float]:
    """Draw the layouts of the first images of a data set. Returns the share of boxes that the segmenter finds again in what is
    drawn, and that in the images themselves.

    ``file``: a picture with the first of these images above, and below what is drawn.
    """
    dataset = open_split(described)
    samples = [dataset.load(index, python_stream('layouts', index)) for index in range(min(count, len(dataset)))]
    batch = collate(samples)
    layout = Condition(boxes=batch.boxes, box_categories=batch.box_categories, boxes_mask=batch.boxes_mask)
    drawn: Tensor = drawing.sample(layout=layout, count=len(samples), seed=seed)
    save_png(file, beside(samples[:SHOWN], drawn[:SHOWN], dataset.label_names))
    assert batch.image is not None
    made, true = (found_again(segmenter.regions(images), layout) for images in (drawn, batch.image))
    return made, true


def beside(samples: list[Sample], drawn: Tensor, names: Any = None) -> Tensor:
    """The images of samples in the first row, and ``drawn`` (n, 3, H, W) uint8 in the second, all with the boxes of the
    samples: one picture (3, H', W') uint8."""
    rows = []
    for images in ([sample['image'] for sample in samples], [*drawn.permute(0, 2, 3, 1).cpu().numpy()]):
        for sample, image in zip(samples, images, strict=True):
            fitted = fit(np.ascontiguousarray(image), CELL)
            rows.append(with_shapes(fitted, sample, fitted.shape[1] / image.shape[1], names))
    return grid(torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2), columns=len(samples))
