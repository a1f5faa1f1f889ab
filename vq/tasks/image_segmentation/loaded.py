"""The object that ``vq.load`` returns for the run of a segmenter: it labels the pixels of images, and finds boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.data.inputs import Images, Intake, ValueRange
from vq.data.regions import SMALLEST, Regions, regions_of
from vq.io.runs import Run, Weights
from vq.io.weights import load_model_from
from vq.registries import VQTaskRegistry
from vq.tasks.image_segmentation.task import ImageSegmentation


class LoadedSegmenter:
    """A segmenter in eval mode on one device. ``vq/data/inputs.py`` lists what ``images`` can be.

    ``class_names``: the name of each class; () if classes have no names.
    """

    def __init__(
        self, model: ImageSegmentation, device: torch.device, source: str, intake: Intake, class_names: Sequence[str] = ()
    ) -> None:
        self.model = model.to(device).eval()
        self.device, self.source, self.intake = device, source, intake
        self.class_names = tuple(class_names) if len(class_names) == model.label_count else ()

    def segment(self, images: Images, value_range: ValueRange | None = None) -> Tensor:
        """The class of each pixel (B, H, W) int64, on the CPU; the number of classes where nothing is."""
        return torch.cat([self.model.segment(batch).cpu() for batch in self.intake.batches(images, self.device, value_range)])

    def regions(self, images: Images, smallest: int = SMALLEST, value_range: ValueRange | None = None) -> list[Regions]:
        """The boxes and categories of each image; see ``regions_of``."""
        return regions_of(self.segment(images, value_range), self.model.label_count, smallest)

    def detect(self, images: Images, smallest: int = SMALLEST, value_range: ValueRange | None = None) -> list[dict[str, Any]]:
        """What is where, a row for each image, as in the file of ``vq.sample --layout``:
        ``{"boxes": [[x1, y1, x2, y2], ...], "categories": [number, ...]}``, in pixels of the image as the model takes it."""
        found = self.regions(images, smallest, value_range)
        return [{'boxes': one.boxes.tolist(), 'categories': one.categories.tolist()} for one in found]

    def __repr__(self) -> str:
        return f'{type(self.model).__name__}({self.source}, {self.model.label_count} classes, images of {self.intake})'


def load_segmenter(run: Run, weights: Weights, device: str | torch.device, intake: Intake) -> LoadedSegmenter:
    """The segmenter of a run."""
    task = VQTaskRegistry.build(run.model, 'model')
    if not isinstance(task, ImageSegmentation):
        raise UserError(f'{run.weights} holds a {type(task).__name__}', 'Give the run of a segmenter.')
    load_model_from(task, [run], weights=weights)
    return LoadedSegmenter(task, torch.device(device), str(run.weights), intake, run.spec.categories)
