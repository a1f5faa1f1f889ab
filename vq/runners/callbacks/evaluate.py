"""Evaluation during training, with the figures that ``vq.val`` would give for the same weights."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Literal

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.interfaces import Callback
from vq.registries import VQCallbackRegistry
from vq.runners.callbacks.ema import EMACallback
from vq.runners.evaluating import evaluating
from vq.runners.journal import read
from vq.runners.protocol import TrainerLike
from vq.runners.validator import Validator

logger = logging.getLogger('vq')


@VQCallbackRegistry.register_()
class EvalCallback(Callback[TrainerLike]):
    """Every ``interval`` steps and at the end: dataset and metrics of the config's ``validator``, on the model in training.

    A checkpoint of the same step is written before the evaluation. Its figures are then noted in the checkpoint, and
    ``keep_best`` ranks by them. Random generators and the order of the training data do not change. If a run ends between a
    checkpoint and the end of its evaluation, the resumed run evaluates first.

    weights  'auto': the moving average if there is one, otherwise the model; 'model': the current weights; 'ema': the average
    limit    evaluate only this many samples, evenly spaced over the split: as many of each class of a split
             in order of class
    """

    phase = 'evaluate'

    def __init__(
        self, interval: int = 5000, weights: Literal['auto', 'model', 'ema'] = 'auto', limit: int | None = None
    ) -> None:
        if interval < 1 or (limit is not None and limit < 1):
            raise ConfigError(f'EvalCallback has interval {interval} and limit {limit}', 'Give 1 or more of each.')
        if weights not in ('auto', 'model', 'ema'):
            raise ConfigError(f"EvalCallback evaluates the weights '{weights}'", "They are 'auto', 'model' or 'ema'.")
        self.interval, self.weights, self.limit = interval, weights, limit
        self.validator: Validator | None = None

    def bind(self, runner: TrainerLike) -> None:
        super().bind(runner)
        self.average = next((found for found in runner.callbacks.values() if isinstance(found, EMACallback)), None)
        if self.weights == 'ema' and self.average is None:
            raise ConfigError('EvalCallback evaluates the moving average, and there is none', 'Add an EMACallback.')

    def before_run(self) -> None:
        validation = self.runner.context.validation
        if validation is None:
            raise ConfigError(
                'EvalCallback runs the validator of the config, and there is none', 'Add a validator to the config.'
            )
        runner = self.runner
        with evaluating(runner.model):  # built now: a missing file of a metric must not end the run hours later
            self.validator = validation(runner.model, runner.strategy)
            self.validator.bind(runner.context)
            self.validator.place_networks()
            self.validator.limit, self.validator.spaced = self.limit, True
            for callback in self.validator.callbacks.values():
                callback.bind(self.validator)
        if runner.resumed is not None and runner.step and self._due() and not self._was_evaluated():
            self._measure()

    def inspect(self) -> None:
        if self._due() and not self.runner.stop_requested:  # after a stop request, the resumed run evaluates
            self._measure()

    def _due(self) -> bool:
        return self.runner.step % self.interval == 0 or self.runner.step == self.runner.iters

    def _was_evaluated(self) -> bool:
        """Whether the journal has an evaluation of the resumed step. The main rank reads it."""
        path = self.runner.journal.path
        lines = read(path, 'eval') if collectives.is_main() and path.is_file() else []
        return any(collectives.all_gather_object(any(line['step'] == self.runner.step for line in lines)))

    def _measure(self) -> None:
        runner = self.runner
        runner.guard.check()  # no evaluation of weights after a loss or gradient that is not finite
        measured = self.evaluate()
        figures = {name: float(value) for name, value in measured.items() if isinstance(value, int | float)}
        runner.measured = runner.step, figures
        runner.journal.write(runner.step, 'eval', figures)
        if collectives.is_main():
            shown = '  '.join(f'{name} {value:.4g}' for name, value in figures.items() if '/' not in name)
            logger.info('evaluation at step %d: %s', runner.step, shown)

    def evaluate(self) -> dict[str, Any]:
        with self._ready() as validator:
            validator.work_dir = self.runner.work_dir / 'eval' / f'iter_{self.runner.step}'
            return validator.evaluate()

    def rehearse(self, batches: int, most: int) -> None:
        """A few batches through model and metrics, before the run begins."""
        with self._ready() as validator:
            validator.rehearse(batches, most)

    @contextlib.contextmanager
    def _ready(self) -> Iterator[Validator]:
        """The validator, with the model in eval mode and the weights to evaluate."""
        assert self.validator is not None
        averaged = self.average is not None and self.weights != 'model'
        with (
            evaluating(self.runner.model),
            self.average.applied() if averaged and self.average else contextlib.nullcontext(),
            self.runner.strategy.whole(),
        ):
            yield self.validator
