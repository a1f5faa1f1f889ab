"""Small files from anywhere: never read from a pipe or a device, and bounded in size and nesting. Works without torch."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import IO, Any

SMALL = 10_000_000  # bytes of a JSON file about one checkpoint or result; ours take a few thousand
DEEPEST = 100  # levels of nesting in a JSON file; ours have fewer than 10


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a regular file for reading. ``OSError`` for anything else: a pipe would block, and a device may never end."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # without O_NONBLOCK a pipe waits for its writer
    kind = os.fstat(file).st_mode
    if not stat.S_ISREG(kind):
        os.close(file)
        code, why = (errno.EISDIR, os.strerror(errno.EISDIR)) if stat.S_ISDIR(kind) else (errno.EINVAL, 'not a regular file')
        raise OSError(code, why, str(path))
    return open(file, 'rb')


def read_bytes(path: str | Path, largest: int = SMALL) -> bytes:
    """The content of a regular file. ``ValueError`` if it has more than ``largest`` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise ValueError(f'it has {size:,} bytes, and at most {largest:,} are read')
        return file.read()


def read_json(path: str | Path, largest: int = SMALL, deepest: int | None = DEEPEST) -> Any:
    """The JSON value in a file. Raises ``ValueError`` or ``OSError`` and nothing else."""
    return parse_json(read_bytes(path, largest), deepest)


def parse_json(text: str | bytes, deepest: int | None = DEEPEST) -> Any:
    """A JSON value. ``ValueError`` also for other text than UTF-8, numbers of thousands of digits, and too deep nesting.

    ``deepest=None`` leaves the depth to the parser, whose limit is that of Python's stack: a million entries are not walked.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError('it is nested too deeply') from error
    level = [value]
    for _ in range(deepest or 0):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
            if isinstance(child, dict | list)
        ]
        if not level:
            return value
    if deepest is None:
        return value
    raise ValueError(f'it is nested deeper than {deepest} levels')
