"""Pictures that a generator draws of a validation split, and its loss at each position of the sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.core.records import Batch, Outputs, to_float
from vq.interfaces import Callback
from vq.io.pages.charts import Series, line_chart
from vq.io.pages.page import Page
from vq.io.pictures import grid, save_png
from vq.metrics.tokens import TokenMetric
from vq.registries import VQCallbackRegistry
from vq.runners.protocol import ValidatorLike


@VQCallbackRegistry.register_()
class TokenReportCallback(Callback[ValidatorLike]):
    """``visual/generations.png`` of the first ``count`` images of a pass: rows of inputs, reconstructions and drawn pictures.

    ``visual/position_loss.html`` shows the mean loss of each position, if a TokenMetric measures it.
    """

    phase = 'pictures'

    def __init__(self, count: int = 16) -> None:
        if count < 1:
            raise ConfigError(f'TokenReportCallback has a count of {count}', 'Give 1 or more.')
        self.count = count

    def before_run(self) -> None:
        self._rows: dict[str, list[Tensor]] = {}

    @torch.no_grad()
    def after_batch(self, batch: Batch, outputs: Outputs) -> None:
        left = self.count - sum(map(len, self._rows.get('input', [])))
        if left <= 0 or outputs.reconstruction is None or not collectives.is_main():
            return
        shown = {'input': to_float(batch.image), 'reconstruction': outputs.reconstruction, **outputs.pictures}
        for name, images in shown.items():
            self._rows.setdefault(name, []).append(images[:left].float().cpu())

    def after_run(self) -> None:
        if not collectives.is_main():
            return
        folder = self.runner.work_dir / 'visual'
        if self._rows:
            rows = [torch.cat(parts) for parts in self._rows.values()]
            save_png(folder / 'generations.png', grid(torch.cat(rows), columns=len(rows[0])))
        for metric in self.runner.metrics.values():
            if isinstance(metric, TokenMetric) and metric.position_loss:
                self._chart(metric.position_loss).save(folder / 'position_loss.html')

    def _chart(self, losses: list[float]) -> Page:
        page = Page('Loss by position', f'Mean over the split of -log p of each of the {len(losses)} tokens, in nats.')
        series = [Series('loss', list(range(len(losses))), losses)]
        note = 'Positions in the order of the sequence: raster order. The first is predicted from the class alone.'
        page.section('positions', 'Where in the image', note, [line_chart('Loss, nats', series, 'position', zero=True)])
        return page
