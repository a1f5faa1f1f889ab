"""A progress bar with loss and rate on a terminal. Without a terminal there is no bar: log lines have the same figures."""

from __future__ import annotations

from typing import Any

from vq.core import collectives
from vq.interfaces import Callback
from vq.registries import VQCallbackRegistry
from vq.runners.progress import ProgressBar
from vq.runners.protocol import TrainerLike


@VQCallbackRegistry.register_()
class ProgressCallback(Callback[TrainerLike]):
    """One bar over the steps of the run. The loss in it is that of the last line of the log, the first optimizer's total:
    reading it in every step would make the host wait for the device."""

    phase = 'progress'

    def before_run(self) -> None:
        runner = self.runner
        rated = 'images', float(runner.batch_size)
        self.bar = ProgressBar(
            'training', runner.iters, 'steps', runner.step, visible=collectives.is_main(), lines=False, rated=rated
        )
        runner.journal.scalar_listeners.append(self._hear)

    def before_step(self) -> None:
        if not self.bar.running:  # not in before_run: what is said before the first step stands above the bar
            self.bar.start()

    def _hear(self, step: int, kind: str, values: dict[str, Any]) -> None:
        if kind == 'train':
            name = next((name for name in values if name == 'total' or name.endswith('/total')), None)
            self.bar.said = '' if name is None else f'loss {values[name]:.4f}'

    def after_step(self) -> None:
        self.bar.advance()

    def after_run(self) -> None:
        self.bar.stop()

    def on_error(self, error: BaseException) -> None:
        if hasattr(self, 'bar'):
            self.bar.stop()
