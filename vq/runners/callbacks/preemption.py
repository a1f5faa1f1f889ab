"""Preemption: on a signal from the cluster, finish the step, write a checkpoint, exit."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any

from vq.interfaces import Callback
from vq.registries import VQCallbackRegistry
from vq.runners.protocol import TrainerLike

logger = logging.getLogger('vq')


@VQCallbackRegistry.register_()
class PreemptionCallback(Callback[TrainerLike]):
    """On SIGTERM or SIGUSR1 to any rank, all ranks stop after the same step, when its checkpoint is written."""

    phase = 'preemption'

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def before_run(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self._receive) for number in self.SIGNALS}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def after_step(self) -> None:
        if self.runner.strategy.agree(self.received is not None) and not self.runner.stop_requested:
            logger.warning(
                'asked to stop (%s) after step %d: writing a checkpoint and exiting',
                signal.Signals(self.received).name if self.received else 'signal to another rank',
                self.runner.step,
            )
            self.runner.stop_requested = True

    def after_run(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}

    def on_error(self, error: BaseException) -> None:
        if hasattr(self, 'previous'):
            self.after_run()
