"""A forked child that dies at its k-th change of the file system, like after a power cut or ``kill -9``."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import vq.io.writer

KILLED, SURVIVED, FAILED = 9, 0, 3
CHANGES = ('os.rename', 'os.remove', 'os.rmdir', 'os.mkdir', 'os.truncate', 'os.link', 'os.symlink')


class Killer:
    """Forks children to be killed from a small separate process. A fork of the test process, with the memory of a thousand
    tests, would take longer than the child itself.
    """

    def __enter__(self) -> Killer:
        self._pipe, there = multiprocessing.Pipe()
        self._process = multiprocessing.get_context('spawn').Process(target=_serve, args=(there,), daemon=True)
        self._process.start()
        there.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pipe.close()  # at which it ends
        self._process.join()

    def run(self, action: Callable[[], object], at: int, folders_cannot_be_renamed: bool = False) -> bool:
        """Run ``action`` in a child that is killed at its change number ``at``. Returns whether it finished before."""
        self._pipe.send_bytes(pickle.dumps((action, at, folders_cannot_be_renamed)))
        code: int = self._pipe.recv()
        assert code in (KILLED, SURVIVED), f'the child ended with {code}'
        return code == SURVIVED


def _serve(pipe: Connection) -> None:
    while True:
        try:
            order = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send(_run_killed(*pickle.loads(order)))


def _run_killed(action: Callable[[], object], at: int, folders_cannot_be_renamed: bool) -> int:
    child = os.fork()
    if child == 0:
        code = FAILED
        try:
            _arm(at, folders_cannot_be_renamed)
            action()
            code = SURVIVED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _arm(at: int, folders_cannot_be_renamed: bool) -> None:
    left = at
    write, rename = os.write, os.rename

    def last() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    def count(*arguments: Any) -> None:
        if last():
            os._exit(KILLED)

    def write_half(file: int, data: Any) -> int:
        if last():
            write(file, data[: len(data) // 2])
            os._exit(KILLED)
        return write(file, data)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        # an audit hook sees system operations of all Python modules
        opened = event == 'open' and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event in CHANGES or opened:
            count()

    def rename_files(source: Any, target: Any, **places: Any) -> None:
        if Path(source).is_dir():
            raise OSError(errno.EXDEV, 'no rename of folders here')
        rename(source, target, **places)

    os.write, os.fsync = write_half, count  # type: ignore[assignment]
    if folders_cannot_be_renamed:
        os.rename = rename_files
    vq.io.writer._BUFFER = 512  # more operations to die at
    sys.addaudithook(watch)


@contextmanager
def failing_write(at: int, error: int) -> Iterator[list[int]]:
    """In this process, write number ``at`` fails; the list has the sizes of successful writes."""
    write, sizes = os.write, []

    def fail(file: int, data: Any) -> int:
        if len(sizes) == at:
            raise OSError(error, os.strerror(error))
        sizes.append(write(file, data))
        return sizes[-1]

    os.write = fail  # type: ignore[assignment]
    try:
        yield sizes
    finally:
        os.write = write
