"""Output that can be lost while the work goes on: a pipe without a reader, a closed terminal, a log on a full disk.

A run of days must not end because ``head`` has read enough. What is lost is counted, and reported where output still works.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

LOST: collections.Counter[tuple[str, str]] = collections.Counter()  # (name of the output, reason) -> lines


def count_lost(name: str, error: Exception | None) -> None:
    reason = 'it is closed' if error is None else getattr(error, 'strerror', None) or str(error)
    LOST[name, reason] += 1


def lost() -> str:
    """What was lost in this process, as a sentence; empty if nothing was."""
    return ', '.join(f'{count} line{"s" * (count > 1)} of {name} ({reason})' for (name, reason), count in LOST.items())


# colours and columns of a terminal

_COLOURS = {'red': '31', 'yellow': '33'}


def takes_colours(stream: TextIO) -> bool:
    """Whether it is a terminal, and the user has not switched colours off (https://no-color.org)."""
    return stream.isatty() and not os.environ.get('NO_COLOR') and os.environ.get('TERM') not in ('dumb', 'unknown')


def paint(text: str, colour: str) -> str:
    return f'\x1b[1;{_COLOURS[colour]}m{text}\x1b[0m'


def columns(stream: TextIO, otherwise: int = 80) -> int:
    """The width of a terminal; ``otherwise`` of anything else."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or otherwise
    except (OSError, ValueError, AttributeError, TypeError):  # no terminal, closed, or without a descriptor
        return otherwise


def block(title: str, rows: Mapping[str, str], width: int) -> str:
    """A title and indented rows of a name and a text, wrapped at ``width`` columns. Empty rows are left out.

    A command, made by ``unbroken``, stays on one line.
    """
    kept = {name: text for name, text in rows.items() if text}
    indent = 2 + max(map(len, kept), default=0) + 2
    lines = [title]
    for name, text in kept.items():
        lines += textwrap.wrap(
            text,
            max(width - 1, indent + 20),
            initial_indent=f'  {name}'.ljust(indent),
            subsequent_indent=' ' * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return '\n'.join(lines).replace('\xa0', ' ')


def unbroken(text: str) -> str:
    return text.replace(' ', '\xa0')  # textwrap breaks at ASCII blanks only


class LastingStream:
    """A text stream whose writes never raise. Everything else is that of the stream."""

    def __init__(self, name: str, stream: TextIO | None) -> None:
        self.name, self.stream = name, stream
        self.failed: Exception | None = None  # the last error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        if self.stream is None:
            LOST[self.name, 'it is closed'] += text.count('\n')
            return len(text)
        try:
            self.stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed in this process
            self._note(error)
        return len(text)

    def flush(self) -> None:
        try:
            if self.stream is not None:
                self.stream.flush()
        except (OSError, ValueError) as error:
            self._note(error)

    def isatty(self) -> bool:
        return self.stream is not None and not self.stream.closed and self.stream.isatty()

    def _note(self, error: Exception) -> None:
        self.failed = error
        count_lost(self.name, error)


@contextlib.contextmanager
def lasting() -> Iterator[LastingStream]:
    """``sys.stdout`` and ``sys.stderr`` whose writes never raise, for the time of a command. Gives the stream of stdout."""
    _fill_closed_descriptors()
    before = sys.stdout, sys.stderr
    out, err = LastingStream('stdout', before[0]), LastingStream('stderr', before[1])
    sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
    try:
        yield out
    finally:
        for stream in (out, err):
            stream.flush()
            if stream.failed is not None:
                _discard(stream)
        sys.stdout, sys.stderr = before


def is_full(stream: LastingStream) -> bool:
    """Whether output was lost for another reason than a reader that has gone."""
    return stream.failed is not None and getattr(stream.failed, 'errno', None) != errno.EPIPE


def _fill_closed_descriptors() -> None:
    """Open the null device where descriptor 0, 1 or 2 is closed. Otherwise the next file would get it, a checkpoint for
    example, and a C library that writes an error would write into that file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


def _discard(stream: LastingStream) -> None:
    """Let the interpreter's flush at exit succeed: bytes that are left in the buffer go to the null device."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        number = stream.fileno()
        if number in (1, 2):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)
