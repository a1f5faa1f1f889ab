"""A progress bar with rates on a terminal. Without a terminal there is no bar: log lines have the same figures."""

from __future__ import annotations

from vq.core import collectives
from vq.interfaces import Callback
from vq.registries import VQCallbackRegistry
from vq.runners.progress import ProgressBar
from vq.runners.protocol import TrainerLike


@VQCallbackRegistry.register_()
class ProgressCallback(Callback[TrainerLike]):
    """One bar over the steps of the run."""

    phase = 'progress'

    def before_run(self) -> None:
        self.bar = ProgressBar(
            'training', self.runner.iters, 'steps', self.runner.step, visible=collectives.is_main(), lines=False
        )
        self.bar.start()

    def after_step(self) -> None:
        self.bar.advance()

    def after_run(self) -> None:
        self.bar.stop()

    def on_error(self, error: BaseException) -> None:
        if hasattr(self, 'bar'):
            self.bar.stop()
