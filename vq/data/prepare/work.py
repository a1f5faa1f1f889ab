"""What the steps of a preparation share: where they work, what they say, and files that are whole or absent."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol, TypeVar

from vq.core.errors import RunFailure
from vq.io.writer import disk_errors

T = TypeVar('T')

LOCK = '.preparing'
AT_ONCE = 256  # images in work before the next are handed out


class Count(Protocol):
    """A progress bar."""

    def advance(self, count: int = 1) -> None: ...


Tracker = Callable[[str, int, str], AbstractContextManager[Count]]  # what, total, unit


@dataclasses.dataclass(frozen=True)
class Work:
    """``folder``: that of the dataset, below ``root``, that of all datasets."""

    root: Path
    folder: Path
    say: Callable[[str], None]
    track: Tracker
    size: int = 256  # pixels of a side, where images are made
    splits: Path | None = None  # a JSON file: split -> ids of its images
    workers: int = 4


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Only one process prepares a folder at a time."""
    with disk_errors(folder / LOCK):
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFailure(f'another process prepares {folder} right now', 'Wait for it, then run this again.') from None
        yield
    finally:
        os.close(file)


@contextlib.contextmanager
def placed(target: Path) -> Iterator[IO[bytes]]:
    """A file that appears at ``target`` when the block ends without an error. ``alone`` keeps other writers away.

    It is not flushed to the disk: a set has a hundred thousand files, and a repeated command checks them.
    """
    aside = target.with_name(f'.{target.name}.part')
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
        try:
            with open(file, 'wb') as opened:
                yield opened
            os.replace(aside, target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def make_missing(work: Work, what: str, total: int, missing: Sequence[T], make: Callable[[T], None]) -> None:
    """Call ``make`` for each of what is missing of ``total``, on the threads of ``work``, and count."""
    with work.track(what, total, 'images') as count, ThreadPoolExecutor(work.workers) as pool:
        count.advance(total - len(missing))
        for start in range(0, len(missing), AT_ONCE):
            for _ in pool.map(make, missing[start : start + AT_ONCE]):
                count.advance()
