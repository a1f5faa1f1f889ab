"""Worker processes of the loader: which signals they ignore, how they end, what they were reading when one died."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

PARENT_CHECK = 1.0  # seconds
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class Reading:
    """The sample that each worker is reading, in shared memory: it is still there when the worker is killed."""

    def __init__(self, workers: int) -> None:
        slots = torch.zeros(workers, dtype=torch.int64)  # number of the sample + 1; 0: none
        self._slots: Tensor = slots.share_memory_()  # type: ignore[no-untyped-call]

    def note(self, index: int) -> None:
        """Called in a worker with the number of the sample that it begins with; -1 after the last of a batch."""
        worker = get_worker_info()
        if worker is not None:
            self._slots.numpy()[worker.id] = index + 1  # a number in a tensor takes ten times as long

    def of_the_dead(self, packets: Any) -> list[int]:
        """The samples that the workers of torch's iterator were reading which have died."""
        workers = list(getattr(packets, '_workers', ()))
        for process in self._ended(workers):
            with _told_already():
                process.join(1)  # its pipes close a little before it can be waited for
        found = [int(self._slots[worker]) - 1 for worker, process in enumerate(workers) if process.exitcode is not None]
        return [index for index in found if index >= 0]

    @staticmethod
    def _ended(workers: list[Any]) -> list[Any]:
        with _told_already():
            wait([process.sentinel for process in workers], timeout=0.2)
        ready = wait([process.sentinel for process in workers], timeout=0)
        return [process for process in workers if process.sentinel in ready]


def tells_of_a_death(error: BaseException) -> bool:
    """Whether ``error`` means that a worker died: torch's own error, or a broken pipe to the worker. Errors raised inside a
    worker begin with 'Caught'."""
    if isinstance(error, ConnectionError | EOFError):
        return not str(error).startswith('Caught')
    return isinstance(error, RuntimeError) and str(error).startswith('DataLoader worker')


@contextlib.contextmanager
def _told_already() -> Iterator[None]:
    """torch's SIGCHLD handler can report a dead worker at any moment, also when its death is known."""
    try:
        yield
    except RuntimeError as error:
        if not tells_of_a_death(error):
            raise


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Block the stop signals while workers are started: a worker inherits this until it ignores the signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def garbage_left_alone() -> Iterator[None]:
    """Switch garbage collection off while workers are forked: a worker inherits this until ``prepare_worker``.

    A fork copies the garbage of the main process, but not its threads. A worker that collects, for example, a process group of
    torch.distributed waits for threads that are not there: it crashes (SIGSEGV, SIGABRT) or hangs.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_replaced: list[Any] = []  # handlers of the main process, which a worker keeps: one can be the last to hold such an object


def prepare_worker(_: int) -> None:
    """Leave the objects of the main process alone, see ``garbage_left_alone``, and ignore the signals that stop a run. They go
    to the whole process group, and the main process, which handles them, needs its workers until it ends."""
    gc.freeze()  # what exists now is never collected in this worker, nor are its pages copied by a collection
    gc.enable()
    _replaced.extend(signal.signal(number, signal.SIG_IGN) for number in STOPPING)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # signals that arrived meanwhile are ignored too
    torch.set_num_threads(1)
    main = parent_process()  # known since the fork: once the main process is dead, ``getppid`` gives another one
    threading.Thread(target=_end_with, args=(os.getppid() if main is None else main.pid,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this worker when the main process is killed. torch's own check runs only while a worker waits for indices, and never
    ends a worker whose main process died before the worker was ready."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK)
    os._exit(1)


def stop_workers(packets: Any) -> None:
    """Shut down the workers of torch's iterator, then kill those still alive: they ignore SIGTERM."""
    workers = list(getattr(packets, '_workers', ()))
    shut_down = getattr(packets, '_shutdown_workers', None)
    if shut_down is not None:
        with _told_already():  # torch completes the clean-up all the same
            shut_down()
    for worker in workers:
        if worker.is_alive():
            worker.kill()
        worker.join()
