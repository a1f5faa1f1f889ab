"""Log lines: to the terminal and to ``log.txt`` in the run's folder. Ranks other than 0 log only warnings."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from vq.core import output


class TerminalHandler(logging.Handler):
    """Writes to the current ``sys.stderr``, which notebooks, progress bars and tests replace."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


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
    form = logging.Formatter(f'%(asctime)s{mark} %(message)s', '%H:%M:%S')
    handlers: list[logging.Handler] = [TerminalHandler()]
    if folder is not None and rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(LogFile(folder / 'log.txt'))
    for handler in handlers:
        handler.setFormatter(form)
        logger.addHandler(handler)
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logger.propagate = False
    return logger
