"""Progress of long work: a bar with a rate on a terminal, a plain line every 20 seconds in a log."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

logger = logging.getLogger('vq')


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f'{task.speed:.1f} {self.unit}/s' if task.speed else '')


class ProgressBar:
    """``with ProgressBar('validating', total, 'images') as bar: bar.advance(n)``."""

    LINE_SECONDS = 20.0

    def __init__(self, what: str, total: int, unit: str, done: int = 0, visible: bool = True, lines: bool = True) -> None:
        self.what, self.total, self.unit, self.done, self.begun = what, total, unit, done, done
        self._lines = lines and visible
        self._bar: Progress | None = None
        self._visible = visible and sys.stderr.isatty()

    def start(self) -> None:
        self._started = self._last = time.monotonic()
        if self._visible:
            self._bar = Progress(
                TextColumn('{task.description}'),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(self.unit),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total, completed=self.done)

    def advance(self, count: int = 1) -> None:
        self.done += count
        if self._bar is not None:
            self._bar.advance(self._task, count)
        elif self._lines and time.monotonic() - self._last > self.LINE_SECONDS:
            self._last = time.monotonic()
            rate = (self.done - self.begun) / max(self._last - self._started, 1e-9)
            logger.info('%s: %d of %d %s, %.1f/s', self.what, self.done, self.total, self.unit, rate)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
