"""Pictures that a generator draws during its training."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from vq.core import collectives
from vq.core.drawing import Wanted
from vq.core.errors import ConfigError
from vq.interfaces import Callback
from vq.interfaces.conditions import Asked
from vq.interfaces.drawing import Draws, draws_images
from vq.io.pictures import grid, save_png
from vq.registries import VQCallbackRegistry
from vq.runners.callbacks.ema import EMACallback
from vq.runners.evaluating import evaluating
from vq.runners.protocol import TrainerLike


@VQCallbackRegistry.register_()
class GenerationsCallback(Callback[TrainerLike]):
    """Every ``interval`` steps and at the end ``pictures/iter_N_generated.png``: ``each`` images of up to ``classes`` classes.

    A row is a class, or one of ``texts`` where the model takes texts. If there is an EMACallback, its averaged weights draw.
    The seeds of the images are the same every time, so pictures of two checkpoints differ only by training. The random
    generators of the training do not change.
    """

    phase = 'pictures'

    def __init__(self, interval: int = 5000, each: int = 8, classes: int = 10, texts: tuple[str, ...] = ()) -> None:
        if interval < 1 or each < 1 or classes < 1:
            raise ConfigError(
                f'GenerationsCallback has interval {interval}, each {each}, classes {classes}', 'Give 1 or more of all.'
            )
        self.interval, self.each, self.classes, self.texts = interval, each, classes, tuple(texts)

    def bind(self, runner: Any) -> None:
        super().bind(runner)
        if not draws_images(runner.model):
            raise ConfigError(
                f'{type(runner.model).__name__} draws nothing',
                'GenerationsCallback is for generators: leave it out of the callbacks.',
            )
        if self.texts and runner.model.asks != 'text':
            raise ConfigError(
                f'GenerationsCallback has texts, and {type(runner.model).__name__} takes none here', 'Leave texts out.'
            )

    @torch.no_grad()
    def inspect(self) -> None:
        runner = self.runner
        if runner.step % self.interval and runner.step != runner.iters:
            return
        model = runner.model
        average = next((callback for callback in runner.callbacks.values() if isinstance(callback, EMACallback)), None)
        applied = contextlib.nullcontext() if average is None else average.applied()
        with evaluating(model), applied, runner.strategy.whole():
            assert draws_images(model)  # checked in bind
            self._draw(model)

    def _draw(self, model: Draws) -> None:
        """All ranks draw the same images, because a sharded network needs all ranks. The main rank writes the file."""
        strategy, known = self.runner.strategy, model.classes
        rows = len(self.texts) or min(known, self.classes) or 1
        ids = list(range(rows * self.each))
        row_of = [number // self.each for number in ids]
        asked = Asked(text=[self.texts[row] for row in row_of]) if self.texts else Asked(row_of if known else None)
        wanted = Wanted(ids, self.runner.context.seed, model.condition(asked, ids, strategy.device))
        with strategy.autocast():
            found = model.draw(wanted).images()
        if found is None:
            return
        images = found.float()
        if collectives.is_main():
            picture = grid(images, columns=self.each)
            save_png(self.runner.work_dir / 'pictures' / f'iter_{self.runner.step}_generated.png', picture)
            self.runner.journal.picture(self.runner.step, 'generated', picture)
