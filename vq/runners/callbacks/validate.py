"""Losses on held-out samples during training, without drawing."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from torch import nn

from vq.core import collectives
from vq.registries import VQCallbackRegistry
from vq.runners.callbacks.evaluate import EvalCallback
from vq.runners.validator import Validator

logger = logging.getLogger('vq')


@VQCallbackRegistry.register_()
class ValidateCallback(EvalCallback):
    """Every ``interval`` steps and at the end: the losses of the validation split, and nothing else of an EvalCallback.

    No picture is drawn and no metric computed, so that it can be made much oftener. Lines of the log have the kind
    'validation'. Checkpoints note no figure of it.
    """

    def before_run(self) -> None:
        super().before_run()
        assert self.validator is not None
        self.validator.metrics, self.validator.callbacks, self.validator.networks = {}, {}, nn.ModuleDict()

    def _measure(self) -> None:
        runner = self.runner
        runner.guard.check()
        losses = {name: value for name, value in self.evaluate().items() if name.startswith('loss/')}
        runner.journal.write(runner.step, 'validation', losses)
        if collectives.is_main():
            shown = '  '.join(f'{name.removeprefix("loss/")} {value:.4g}' for name, value in losses.items())
            logger.info('validation at step %d: %s', runner.step, shown)

    def _was_evaluated(self) -> bool:
        return True  # a kill costs one line of losses: not worth a pass before the first step

    @contextlib.contextmanager
    def _ready(self) -> Iterator[Validator]:
        with super()._ready() as validator:
            model: Any = validator.model
            draws = getattr(model, 'draws', None)
            if draws is not None:
                model.draws = ()
            try:
                yield validator
            finally:
                if draws is not None:
                    model.draws = draws
