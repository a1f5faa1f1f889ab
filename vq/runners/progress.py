"""Progress of long work: a row with a rate on a terminal, a plain line every 20 seconds in a log.

All bars of a process share one display at the bottom of the terminal, so an evaluation has its row below that of the training
around it. A row is one line at any width: what does not fit is left out, the bar itself first. Lines of the log appear above.

The display is drawn by the work itself, at most five times a second. A thread that draws would take time from the steps.
"""

from __future__ import annotations

import collections
import logging
import os
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

logger = logging.getLogger('vq')

LONGEST_BAR, SHORTEST_BAR = 40, 5  # columns
FULL, EMPTY = '━', '─'
PLAIN = str.maketrans({FULL: '#', EMPTY: '-'})  # for a terminal without these characters


def row(width: int, what: str, done: int, total: int, said: str = '', rate: str = '', left: float | None = None) -> str:
    """One line of less than ``width`` columns. ``said``: a figure of the work; ``left``: seconds until its end."""
    parts = {'what': what, 'done': f'{done}/{total}', 'said': said, 'rate': rate, 'left': '' if left is None else eta(left)}
    parts = {name: text for name, text in parts.items() if text}
    for drop in ('', 'rate', 'said', 'what', 'left'):
        parts.pop(drop, None)
        room = width - 1 - len(' '.join(parts.values()))
        if room >= 0:
            break
    bar = min(LONGEST_BAR, room - 1)
    if bar < SHORTEST_BAR or 'what' not in parts:
        return ' '.join(parts.values())[: max(width - 1, 0)]
    filled = bar * min(done, total) // max(total, 1)
    parts['what'] += ' ' + FULL * filled + EMPTY * (bar - filled)
    return ' '.join(parts.values())


def eta(seconds: float) -> str:
    return f'eta {clock(seconds)}'


def clock(seconds: float) -> str:
    """``1:02:03``: hours, minutes, seconds."""
    minutes, rest = divmod(int(seconds), 60)
    return f'{minutes // 60}:{minutes % 60:02d}:{rest:02d}'


class _Display:
    """The rows of all bars that run, the outermost first."""

    def __init__(self) -> None:
        self.bars: list[ProgressBar] = []
        self.live: Live | None = None

    def add(self, bar: ProgressBar) -> None:
        self.bars.append(bar)
        if self.live is None:
            self.live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self.live.start()
        self.draw()

    def remove(self, bar: ProgressBar) -> None:
        self.bars.remove(bar)
        if self.live is not None and not self.bars:
            self.live.stop()
            self.live = None
        self.draw()

    def draw(self) -> None:
        if self.live is not None:
            width = self.live.console.width
            text = '\n'.join(bar.row(width) for bar in self.bars)
            rows = Text(text if self.live.console.encoding.startswith('utf') else text.translate(PLAIN), no_wrap=True)
            rows.highlight_regex(f'{FULL}+', 'cyan')
            self.live.update(rows, refresh=True)


_display = _Display()


def print_above(text: str) -> bool:
    """Print above the rows of the display, without breaking lines. False if there is no display."""
    if _display.live is None:
        return False
    _display.live.console.print(Text.from_ansi(text), soft_wrap=True)
    return True


class ProgressBar:
    """``with ProgressBar('validating', total, 'images') as bar: bar.advance(n)``.

    ``rated``: the unit of the rate and its number in one of ``unit``, for example images in a step. ``said`` is a figure that
    stands in the row.
    """

    LINE_SECONDS, DRAW_SECONDS = 20.0, 0.2

    def __init__(
        self,
        what: str,
        total: int,
        unit: str,
        done: int = 0,
        visible: bool = True,
        lines: bool = True,
        rated: tuple[str, float] | None = None,
    ) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self.rated = rated or (unit, 1.0)
        self.said = ''
        drawn = visible and sys.stderr.isatty() and os.environ.get('TERM') not in ('dumb', 'unknown')
        self._seconds = self.DRAW_SECONDS if drawn else self.LINE_SECONDS if visible and lines else None
        self._drawn, self.running = drawn, False

    def start(self) -> None:
        self._last = time.monotonic()
        self._marks = collections.deque([(self._last, self.done)], maxlen=60)  # of the last drawings, for the rate
        self.running = True
        if self._drawn:
            _display.add(self)

    def advance(self, count: int = 1) -> None:
        self.done += count
        if self._seconds is None:
            return
        now = time.monotonic()
        if now - self._last < self._seconds:
            return
        self._last = now
        self._marks.append((now, self.done))
        if self._drawn:
            _display.draw()
        else:
            rate, left = self._pace()
            logger.info('%s: %d of %d %s, %s', self.what, self.done, self.total, self.unit, f'{rate}, {eta(left or 0)}')

    def _pace(self) -> tuple[str, float | None]:
        """The rate over the last drawings, and the seconds that are left."""
        (since, before), (now, done) = self._marks[0], self._marks[-1]
        if done <= before:
            return '', None
        speed = (done - before) / max(now - since, 1e-9)
        unit, each = self.rated
        return f'{speed * each:.1f} {unit}/s', max(self.total - self.done, 0) / speed

    def row(self, width: int) -> str:
        rate, left = self._pace()
        return row(width, self.what, self.done, self.total, self.said, rate, left)

    def stop(self) -> None:
        if self.running and self._drawn:
            _display.remove(self)
        self.running = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
