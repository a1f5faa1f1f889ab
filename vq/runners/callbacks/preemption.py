"""Preemption: on a signal from the cluster, finish the step, write a checkpoint, exit."""

from __future__ import annotations

import contextlib
import logging
import os
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
    """On SIGTERM, SIGUSR1 or the first Ctrl-C on any rank, all ranks stop after the same step, when its checkpoint is written.

    A second Ctrl-C interrupts at once. SIGHUP, from a terminal that was closed, does not end the run.
    """

    phase = 'preemption'

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
    FROM_TERMINAL = (signal.SIGINT, signal.SIGHUP)  # a shell ignores them for a job in the background, as nohup does

    def before_run(self) -> None:
        self.received: int | None = None
        self.hung_up = False
        self.previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            ignored = {number for number in self.FROM_TERMINAL if signal.getsignal(number) is signal.SIG_IGN}
            self.previous = {number: signal.signal(number, self._receive) for number in self.SIGNALS if number not in ignored}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.hung_up = True
            return
        if number == signal.SIGINT:
            if self.received is not None:
                raise KeyboardInterrupt
            with contextlib.suppress(OSError):  # not print: a signal handler may interrupt a print
                os.write(2, b'\nwriting a checkpoint after this step; Ctrl-C again to stop at once\n')
        self.received = number

    def after_step(self) -> None:
        if self.hung_up:
            self.hung_up = False
            logger.warning('the terminal was closed (SIGHUP): training goes on; kill -TERM %d ends it', os.getpid())
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
