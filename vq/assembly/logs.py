"""Log lines: to the terminal and to ``log.txt`` in the run's folder. Ranks other than 0 log only warnings.

A line has date and time, and from a warning on the word for it, in colour on a terminal.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from vq.core import output
from vq.runners.progress import print_above

COLOURS = {logging.WARNING: 'yellow', logging.ERROR: 'red', logging.CRITICAL: 'red'}


class Marked(logging.Formatter):
    """``2026-11-29 07:22:58 WARNING message``; ``mark`` names the rank."""

    def __init__(self, mark: str = '', coloured: bool = False) -> None:
        super().__init__(f'%(asctime)s{mark} %(message)s', '%Y-%m-%d %H:%M:%S')
        self.coloured = coloured

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        if record.levelno >= logging.WARNING:
            word = record.levelname
            if self.coloured and output.takes_colours(sys.stderr):
                word = output.paint(word, COLOURS.get(record.levelno, 'red'))
            record.message = f'{word} {record.message}'
        return super().formatMessage(record)


class TerminalHandler(logging.Handler):
    """Writes to the current ``sys.stderr``, which notebooks, progress bars and tests replace."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if not print_above(line):
            print(line, file=sys.stderr, flush=True)


class LogFile(logging.FileHandler):
    """A file whose lost lines are counted: a full disk does not end a run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError | ValueError):
            raise  # a wrong format string
        output.count_lost(Path(self.baseFilename).name, error)


def start(folder: Path | None = None) -> logging.Logger:
    """Set up the logger ``vq`` for a command."""
    logger = logging.getLogger('vq')
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    rank = int(os.environ.get('RANK', '0') or 0)
    mark = f' rank {rank}' if rank else ''
    handlers: dict[logging.Handler, Marked] = {TerminalHandler(): Marked(mark, coloured=True)}
    if folder is not None and rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        handlers[LogFile(folder / 'log.txt', encoding='utf-8')] = Marked(mark)
    for handler, form in handlers.items():
        handler.setFormatter(form)
        logger.addHandler(handler)
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logger.propagate = False
    return logger
