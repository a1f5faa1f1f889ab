"""The same work on many images or shards, in several processes: results in order, the same for any number of processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

from vq.core.errors import RunFailure, UserError

CHUNK = 16  # images that a process gets at once
PARENT_CHECK = 1.0  # seconds
WORTH_PROCESSES = 200  # images; fewer are read before processes would have started

Shared = TypeVar('Shared')
Item = TypeVar('Item')
Result = TypeVar('Result')

_begun: list[Any] = []  # in a worker process: the work and what it shares


def spread(
    work: Callable[[Shared, Item], Result],
    shared: Shared,
    items: Sequence[Item],
    workers: int,
    advance: Callable[[int], object],
    chunk: int = CHUNK,
    worth: int | None = None,
) -> Iterator[Result]:
    """``work(shared, item)`` of all items. ``advance`` is told how many more are done.

    ``work`` is a function of a module. ``shared`` goes to each process once, ``chunk`` items at a time. Fewer items than
    ``worth`` (None: WORTH_PROCESSES) are done here.
    """
    if workers < 2 or len(items) < (WORTH_PROCESSES if worth is None else worth):
        for item in items:
            found = work(shared, item)
            advance(1)
            yield found
        return
    try:
        ForkingPickler.dumps(shared)
    except Exception as error:  # whatever a part of a user raises
        raise UserError(
            f'{type(shared).__name__} cannot be sent to other processes: {error}', 'Repeat with --workers 1.'
        ) from error
    chunks = [items[first : first + chunk] for first in range(0, len(items), chunk)]
    # spawned, not forked: this process may have threads, of a progress bar or of torch
    context = multiprocessing.get_context('spawn')
    arguments = (os.getpid(), work, shared)
    with ProcessPoolExecutor(min(workers, len(chunks)), context, initializer=_begin, initargs=arguments) as pool:
        try:
            for results in pool.map(_do, chunks):
                advance(len(results))
                yield from results
        except BrokenProcessPool as error:
            raise RunFailure(f'a worker process died: {error}', 'Usually memory ran out: repeat with --workers 1.') from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin(parent: int, work: Callable[[Any, Any], Any], shared: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # left to the parent
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _begun[:] = [work, shared]


def _end_with(parent: int) -> None:
    """End this process when its parent was killed: it would wait for work forever."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK)
    os._exit(1)


def _do(items: Sequence[Any]) -> list[Any]:
    work, shared = _begun
    return [work(shared, item) for item in items]
