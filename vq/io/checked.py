"""Which shards of a set have been compared with their checksums: each once, over worker processes, epochs and commands.

A checked shard is marked in memory that forked worker processes share. For later processes, a line in the user's cache
(``$XDG_CACHE_HOME/vq/checked``, by default below ``~/.cache``) records the digest, and size, times and inode of the file that
was read. The folder of the shards stays as it is: it can be another user's, and read-only. Every write changes the change time
(ctime) of a file, a copy has another inode, and no program sets a change time. So a line holds for this very file only, as it
was read. Lines are valid for a week, because a disk can lose bits without changing times.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

VALID = 7 * 86400  # seconds
SETTLED = 2_000_000_000  # nanoseconds; a change within the same tick of the clock of a file system would go unnoticed
_FIELDS = 7  # name, proof, size, mtime, ctime, inode, time of the check
_LONGEST = 1 << 24  # bytes of a record that are read


class Costs(NamedTuple):
    """What checking has cost so far: shards and bytes read, and processor seconds over all worker processes."""

    shards: int
    size: int
    seconds: float


class Checked:
    """The marks of ``count`` shards in ``folder``."""

    def __init__(self, folder: Path, count: int) -> None:
        self._record = record_of(folder)
        self._spent = _shared(count)  # nanoseconds per shard; 0: not checked, 1: known from the record
        self._sizes = _shared(count)
        self._lines: dict[str, tuple[str, ...]] = {}  # name -> the newest line
        self._position = 0  # in the record: lines before it are known

    def __contains__(self, index: int) -> bool:
        return bool(self._spent[index])

    def costs(self) -> Costs:
        paid = self._spent > 1
        return Costs(int(paid.sum()), int(self._sizes[paid].sum()), float(self._spent[paid].sum()) / 1e9)

    def is_recorded(self, index: int, path: Path, proof: str) -> bool:
        """Whether the record proves the file as it is now. ``proof``: digest and further checks that it passed."""
        self._read_record()
        line = self._lines.get(path.name)
        if line is None or line[1:-1] != (proof, *_stamp(path.stat())) or not 0 <= time.time() - float(line[-1]) < VALID:
            return False
        self._spent[index] = 1
        return True

    def add(self, index: int, path: Path, proof: str, before: os.stat_result, nanoseconds: int) -> None:
        """Mark a shard that was read and found sound. ``before``: its status before it was read."""
        self._spent[index], self._sizes[index] = max(nanoseconds, 2), before.st_size
        now = path.stat()
        if _stamp(now) != _stamp(before) or time.time_ns() - now.st_ctime_ns < SETTLED:
            return
        line = ' '.join([path.name, proof, *_stamp(now), str(int(time.time()))])
        with contextlib.suppress(OSError):  # no home folder, a full disk: the next process checks again
            if not self._record.exists():
                self._record.parent.mkdir(parents=True, exist_ok=True)
                _remove_old(self._record.parent)
            with open(self._record, 'ab', buffering=0) as file:  # one write appends a whole line
                file.write(f'{line}\n'.encode())

    def _read_record(self) -> None:
        """Read the lines that were appended since the last call. What is not a whole line of ours is ignored."""
        try:
            with open(self._record, 'rb') as file:
                file.seek(self._position)
                text = file.read(_LONGEST)
        except OSError:
            return  # there is no record
        whole = text[: text.rfind(b'\n') + 1]
        self._position += len(whole)
        for line in whole.decode(errors='replace').splitlines():
            fields = tuple(line.split(' '))
            if len(fields) == _FIELDS and fields[-1].isascii() and fields[-1].isdecimal() and len(fields[-1]) < 16:
                self._lines[fields[0]] = fields

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_spent': self._spent.copy(), '_sizes': self._sizes.copy()}  # not shared beyond a fork


def record_of(folder: Path) -> Path:
    """The file of a set's lines in the user's cache."""
    root = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return Path(root) / 'vq' / 'checked' / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]


def _remove_old(cache: Path) -> None:
    for path in cache.iterdir():
        if time.time() - path.stat().st_mtime > VALID:
            path.unlink(missing_ok=True)


def _shared(count: int) -> Any:
    """(count,) uint64 zeros, in memory that processes forked later share."""
    return np.frombuffer(mmap.mmap(-1, max(8 * count, 1)), np.uint64, count)


def _stamp(status: os.stat_result) -> tuple[str, ...]:
    return tuple(map(str, (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)))
