"""Every sample of a validation pass as a picture: input, reconstruction, and where they differ."""

from __future__ import annotations

import torch

from vq.core import collectives
from vq.core.records import Batch, Outputs, to_float
from vq.interfaces import Callback
from vq.io.pictures import grid, save_png
from vq.registries import VQCallbackRegistry


@VQCallbackRegistry.register_()
class ReconstructionsCallback(Callback):
    """``visual/RANK_BATCH.png``: three rows (input, reconstruction, error times ``gain``), ``columns`` samples wide."""

    def __init__(self, columns: int = 16, gain: float = 4.0) -> None:
        self.columns, self.gain = columns, gain
        self.sheets = 0

    def before_run(self) -> None:
        self.sheets = 0

    @torch.no_grad()
    def after_batch(self, batch: Batch, outputs: Outputs) -> None:
        if outputs.reconstruction is None:
            return
        image, made = to_float(batch.image), outputs.reconstruction.float().clamp(-1, 1)
        error = ((image - made).abs() * self.gain).clamp(max=2) - 1  # black where equal
        for start in range(0, len(batch), self.columns):
            part = slice(start, start + self.columns)
            sheet = grid(torch.cat([image[part], made[part], error[part]]), columns=image[part].shape[0])
            save_png(self.runner.work_dir / 'visual' / f'{collectives.rank()}_{self.sheets:05d}.png', sheet)
            self.sheets += 1
