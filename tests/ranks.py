"""A pool of rank processes connected by gloo. They are started once, since starting takes most of the time of such tests."""

from __future__ import annotations

import importlib
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.multiprocessing as multiprocessing

SECONDS = 180.0
MOST = 40  # calls of one pair of processes: the groups of earlier calls keep threads and sockets, hundreds after a whole suite


def _serve(rank: int, size: int, store: str, pipe: Connection) -> None:
    os.environ.update(
        OMP_NUM_THREADS='1', RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), LOCAL_WORLD_SIZE=str(size)
    )
    torch.set_num_threads(1)
    import torch.distributed as distributed

    from vq.core import collectives

    distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=size)
    while (order := pipe.recv()) is not None:
        module, name, arguments = order
        collectives.install(collectives.TorchDistributed())
        torch.manual_seed(0)
        try:
            answer = (True, getattr(importlib.import_module(module), name)(*arguments))
        except BaseException:
            answer = (False, traceback.format_exc())
        pipe.send(answer)
    distributed.destroy_process_group()


class GlooPool:
    """``run`` calls a top-level function of an importable module on every rank; results must be picklable."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._workers: list[tuple[Any, Connection]] = []
        self._calls = 0

    def _start(self) -> None:
        context = multiprocessing.get_context('spawn')
        store = os.path.join(tempfile.mkdtemp(prefix='vq-gloo-'), 'store')
        for rank in range(self.size):
            here, there = context.Pipe()
            worker = context.Process(target=_serve, args=(rank, self.size, store, there), daemon=True)
            worker.start()
            self._workers.append((worker, here))

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        if self._calls >= MOST:
            self.close()
        if not self._workers:
            self._start()
        self._calls += 1
        for _, pipe in self._workers:
            pipe.send((function.__module__, function.__name__, arguments))
        answers: list[Any] = [None] * self.size
        waiting = {pipe: rank for rank, (_, pipe) in enumerate(self._workers)}
        deadline = time.monotonic() + SECONDS
        while waiting and all(answer is None or answer[0] for answer in answers):
            # after a failure of one rank the others may wait for it forever
            for pipe in wait(list(waiting), timeout=max(0.0, deadline - time.monotonic())) or ():
                rank = waiting.pop(pipe)
                try:
                    answers[rank] = pipe.recv()
                except EOFError:  # later calls get new processes
                    self._workers[rank][0].join(5)
                    answers[rank] = False, f'rank {rank} died, with exit code {self._workers[rank][0].exitcode}'
            if waiting and time.monotonic() > deadline:
                self.close()
                raise TimeoutError(
                    f'ranks {sorted(waiting.values())} did not answer within {SECONDS:.0f} s: '
                    'do all ranks join every collective?'
                )
        answers = [answer for answer in answers if answer is not None]
        failed = [text for fine, text in answers if not fine]
        if failed:
            self.close()  # a rank that failed may have left the others in another collective
            raise AssertionError('\n'.join(failed))
        return [value for _, value in answers]

    def close(self) -> None:
        for worker, pipe in self._workers:
            try:
                pipe.send(None)
            except (BrokenPipeError, OSError):
                worker.terminate()
            worker.join(5)
            if worker.is_alive():
                worker.terminate()
        self._workers, self._calls = [], 0
