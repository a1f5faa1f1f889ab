"""Pictures that a generator draws during its training."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from vq.core import collectives
from vq.core.drawing import Wanted
from vq.core.errors import ConfigError, listing
from vq.interfaces import Callback
from vq.interfaces.conditions import Asked
from vq.interfaces.drawing import Draws, draws_images, kinds_of
from vq.io.pictures import grid, save_png
from vq.registries import VQCallbackRegistry
from vq.runners.callbacks.ema import EMACallback
from vq.runners.evaluating import evaluating
from vq.runners.protocol import TrainerLike


@VQCallbackRegistry.register_()
class GenerationsCallback(Callback[TrainerLike]):
    """Every ``interval`` steps and at the end ``pictures/iter_N_generated.png``: ``each`` images of up to ``classes`` classes.

    ``interval`` can be the steps themselves, and ``classes`` the numbers of the classes. A row is a class, or one of
    ``texts`` where the model takes texts. If there is an EMACallback, its averaged weights draw.
    The seeds of the images are the same every time, so pictures of two checkpoints differ only by training. The random
    generators of the training do not change.
    """

    phase = 'pictures'

    def __init__(
        self,
        interval: int | tuple[int, ...] = 5000,
        each: int = 8,
        classes: int | tuple[int, ...] = 10,
        texts: tuple[str, ...] = (),
    ) -> None:
        shown = range(classes) if isinstance(classes, int) else tuple(classes)
        steps = (interval,) if isinstance(interval, int) else tuple(interval)
        if not steps or min(steps) < 1 or each < 1 or not shown or min(shown) < 0:
            raise ConfigError(
                f'GenerationsCallback has interval {interval}, each {each}, classes {classes}',
                'Give 1 or more of all, or a list of steps, or of numbers of classes.',
            )
        self.interval, self.each, self.texts = interval if isinstance(interval, int) else steps, each, tuple(texts)
        self.classes = classes if isinstance(classes, int) else tuple(classes)

    def bind(self, runner: Any) -> None:
        super().bind(runner)
        if not draws_images(runner.model):
            raise ConfigError(
                f'{type(runner.model).__name__} draws nothing',
                'GenerationsCallback is for generators: leave it out of the callbacks.',
            )
        if not isinstance(self.classes, int) and max(self.classes) >= runner.model.classes:
            raise ConfigError(
                f'GenerationsCallback has the classes {listing(map(str, self.classes))}, and the model {runner.model.classes}',
                'Give numbers below that.',
            )
        if self.texts and 'text' not in kinds_of(runner.model):
            raise ConfigError(
                f'GenerationsCallback has texts, and {type(runner.model).__name__} takes none here', 'Leave texts out.'
            )

    @torch.no_grad()
    def inspect(self) -> None:
        runner = self.runner
        if not self._due():
            return
        model = runner.model
        average = next((callback for callback in runner.callbacks.values() if isinstance(callback, EMACallback)), None)
        applied = contextlib.nullcontext() if average is None else average.applied()
        with evaluating(model), applied, runner.strategy.whole():
            assert draws_images(model)  # checked in bind
            self._draw(model)

    def _due(self) -> bool:
        step, interval = self.runner.step, self.interval
        return step == self.runner.iters or (step % interval == 0 if isinstance(interval, int) else step in interval)

    def _draw(self, model: Draws) -> None:
        """All ranks draw the same images, because a sharded network needs all ranks. The main rank writes the file."""
        strategy, known = self.runner.strategy, model.classes
        shown = range(min(known, self.classes)) if isinstance(self.classes, int) else self.classes
        rows = len(self.texts) or len(shown) or 1
        ids = list(range(rows * self.each))
        row_of = [number // self.each for number in ids]
        classes = [shown[row] for row in row_of] if known and not self.texts else None
        asked = Asked(text=[self.texts[row] for row in row_of]) if self.texts else Asked(classes)
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
