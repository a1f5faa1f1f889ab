"""Files of single images of a validation by layouts: what was asked for, what is true, what was drawn."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from vq.core.errors import ConfigError
from vq.core.records import Batch, Outputs, to_uint8
from vq.data.survey.drawing import with_shapes
from vq.interfaces import Callback, Sample
from vq.io import atomic
from vq.io.layout_text import layout_text
from vq.io.pictures import save_png
from vq.registries import VQCallbackRegistry
from vq.runners.protocol import ValidatorLike


@VQCallbackRegistry.register_()
class LayoutFilesCallback(Callback[ValidatorLike]):
    """For the first ``count`` images of each rank (None: all), in the folder ``layouts`` of the run, by the id of the image:

    ID.txt         the layout, a line x,y,width,height,class for each box: a file of ``vq.sample --layout``
    ID.truth.png   the image of the data set, with the boxes
    ID.drawn.png   the image that was drawn; ID.boxes.png has the boxes on it, ID.layout.png the boxes alone
    ID.npy         the drawn image before it is rounded, float32 (H, W, 3) in [-1, 1]
    """

    phase = 'pictures'

    def __init__(self, count: int | None = 8) -> None:
        if count is not None and count < 1:
            raise ConfigError(f'LayoutFilesCallback has count {count}', 'Give 1 image or more, or None for all.')
        self.count = count

    def before_run(self) -> None:
        self._written = 0

    @torch.no_grad()
    def after_batch(self, batch: Batch, outputs: Outputs) -> None:
        left = len(batch) if self.count is None else min(len(batch), self.count - self._written)
        if left < 1:
            return
        drawn = outputs.pictures.get('generated')
        if drawn is None or batch.boxes is None or batch.boxes_mask is None or batch.box_categories is None:
            raise ConfigError(
                'LayoutFilesCallback needs boxes and drawn images, and this validation lacks them',
                "Leave it out of the callbacks, or set draws=('generated',) of the task.",
            )
        names = self.runner.dataset.label_names or ()
        for row in range(left):
            kept = batch.boxes_mask[row]
            boxes, categories = batch.boxes[row][kept].tolist(), batch.box_categories[row][kept].tolist()
            sample = Sample(id=batch.id[row], boxes=np.array(boxes), box_categories=np.array(categories))
            place = Path(self.runner.work_dir) / 'layouts' / batch.id[row].replace('/', '_')
            place.parent.mkdir(parents=True, exist_ok=True)
            value = drawn[row].float().permute(1, 2, 0).cpu().contiguous()  # (H, W, 3)
            height, width = value.shape[:2]
            atomic.write_text(f'{place}.txt', layout_text(boxes, categories, (height, width), names))
            made, true = to_uint8(value).numpy(), batch.pixels()[row].permute(1, 2, 0).cpu().contiguous().numpy()
            shown = {'truth': true, 'boxes': made, 'layout': np.full_like(made, 255)}
            pictures = {name: with_shapes(picture, sample, 1.0, names) for name, picture in shown.items()}
            for name, picture in {**pictures, 'drawn': made}.items():
                save_png(Path(f'{place}.{name}.png'), torch.from_numpy(np.array(picture)).permute(2, 0, 1))
            raw = io.BytesIO()
            np.save(raw, value.numpy(), allow_pickle=False)
            atomic.write_bytes(f'{place}.npy', raw.getvalue())
            self._written += 1
