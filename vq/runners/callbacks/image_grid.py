"""Pictures of the outputs of a model: inputs above, reconstructions below."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.records import Batch, Outputs, to_float
from vq.interfaces import Callback
from vq.io.pictures import grid, save_png
from vq.registries import VQCallbackRegistry
from vq.runners.protocol import TrainerLike


@VQCallbackRegistry.register_()
class ImageGridCallback(Callback[TrainerLike]):
    """Every ``interval`` steps, ``pictures/iter_N_NAME.png`` with up to ``count`` columns from the last batch."""

    phase = 'pictures'

    def __init__(self, interval: int = 500, count: int = 8) -> None:
        self.interval, self.count = interval, count
        self.rows: dict[str, list[Tensor]] = {}

    def after_batch(self, batch: Batch, outputs: Outputs) -> None:
        if (self.runner.step + 1) % self.interval or not collectives.is_main():
            return
        self.rows = {}
        if outputs.reconstruction is not None:
            self.rows['reconstruction'] = [
                to_float(batch.pixels()[: self.count]),
                outputs.reconstruction[: self.count].detach(),
            ]
        for name, picture in outputs.pictures.items():
            self.rows[name] = [picture[: self.count].detach()]

    @torch.no_grad()
    def inspect(self) -> None:
        for name, rows in self.rows.items():
            picture = grid(torch.cat([row.float() for row in rows]), columns=rows[0].shape[0])
            save_png(self.runner.work_dir / 'pictures' / f'iter_{self.runner.step}_{name}.png', picture)
            self.runner.journal.picture(self.runner.step, name, picture)
        self.rows = {}
