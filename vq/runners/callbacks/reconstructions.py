"""Pictures of every sample of a validation pass: input, reconstruction, and error."""

from __future__ import annotations

import logging

import torch

from vq.core import collectives
from vq.core.records import Batch, Outputs, to_float
from vq.interfaces import Callback
from vq.io.pictures import grid, save_png
from vq.registries import VQCallbackRegistry
from vq.runners.extremes import Extremes
from vq.runners.protocol import ValidatorLike

logger = logging.getLogger('vq')


@VQCallbackRegistry.register_()
class ReconstructionsCallback(Callback[ValidatorLike]):
    """``visual/RANK_BATCH.png``: three rows (input, reconstruction, error times ``gain``), ``columns`` samples wide.

    ``extremes`` (0: none): the number of samples in each of ``visual/worst.png`` and ``visual/best.png``, ranked by the LPIPS
    of the validator's metrics, or by PSNR if it has none. ``visual/extremes.json`` lists their ids.
    """

    phase = 'pictures'

    def __init__(self, columns: int = 16, gain: float = 4.0, extremes: int = 16) -> None:
        self.columns, self.gain, self.extremes = columns, gain, extremes
        self.sheets = 0

    def before_run(self) -> None:
        self.sheets = 0
        self._extremes = Extremes(self.extremes, getattr(self.runner, 'metrics', {})) if self.extremes else None

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
        if self._extremes is not None:
            self._extremes.add(batch, outputs.reconstruction)

    def after_run(self) -> None:
        if collectives.is_main() and not self.sheets:
            logger.warning('no pictures were written: %s makes no reconstructions', type(self.runner.model).__name__)
        if self._extremes is not None:
            self._extremes.write(self.runner.work_dir / 'visual', self.gain)
