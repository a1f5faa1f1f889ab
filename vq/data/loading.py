"""The loader: loads the batches of a plan, in this process or in worker processes, and handles bad images.

A sample depends on (seed, epoch, index) only, so batches are the same for any number of workers. The loader does not use
the random generators of the process that iterates.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.util import Finalize
from typing import Any, Literal, Self

import torch
from torch.utils.data import DataLoader

from vq.core.errors import ConfigError, RunFailure, UserError
from vq.core.random import derive_seed, python_stream
from vq.core.records import Batch
from vq.data.bad_images import allowed_bad
from vq.data.collate import collate
from vq.data.decode import BadImage
from vq.data.plan import Place
from vq.interfaces import Dataset, Sample

REPLACEMENTS = 32  # other samples that are tried in place of a bad one
SHOWN = 5  # bad files that an error names
PARENT_CHECK = 1.0  # seconds
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

logger = logging.getLogger('vq')


@dataclasses.dataclass
class LoaderSettings:
    """``bad_image_cap``: fraction of the dataset that can be skipped; above 0 a few files of any dataset can be."""

    batch_size: int
    num_workers: int = 0
    prefetch: int = 2  # batches that each worker prefetches
    pin_memory: bool = False  # ignored without CUDA
    batch_size_in_total: bool = False  # batch_size is that of all ranks together
    bad_images: Literal['raise', 'skip'] = 'raise'
    bad_image_cap: float = 0.2

    def __post_init__(self) -> None:
        for name, least in (('batch_size', 1), ('num_workers', 0), ('prefetch', 1)):
            if getattr(self, name) < least:
                raise ConfigError(f'{name} is {getattr(self, name)}', f'It must be at least {least}.')
        if self.bad_images not in ('raise', 'skip') or not 0 <= self.bad_image_cap <= 1:
            raise ConfigError(
                f'bad_images is {self.bad_images!r} with a cap of {self.bad_image_cap}',
                "Use 'raise' or 'skip', and a cap from 0 to 1.",
            )

    def per_rank(self, world: int) -> int:
        """The batch size of one rank."""
        if not self.batch_size_in_total:
            return self.batch_size
        if self.batch_size % world:
            raise ConfigError(
                f'a batch_size of {self.batch_size} in total does not divide among {world} ranks',
                f'Use a multiple of {world}, or set batch_size_in_total to False.',
            )
        return self.batch_size // world


@dataclasses.dataclass
class Packet:
    """The result of a worker: a batch, the files skipped for it (path -> reason), an error for the user."""

    batch: Batch | None
    skipped: dict[str, str]
    error: UserError | None = None

    def pin_memory(self) -> Self:
        """Called by torch's loader."""
        return self if self.batch is None else dataclasses.replace(self, batch=self.batch.pin_memory())


@dataclasses.dataclass
class Fetcher:
    """Loads batches; runs in the workers."""

    dataset: Dataset
    seed: int
    training: bool
    skip: bool

    def __getitems__(self, places: list[Place]) -> Packet:
        skipped: dict[str, str] = {}
        try:
            samples = [sample for epoch, index in places if (sample := self.fetch(epoch, index, skipped)) is not None]
            join: Callable[[Sequence[Sample]], Batch] = getattr(self.dataset, 'collate', collate)
            return Packet(join(samples) if samples else None, skipped)
        except UserError as error:  # passed as an object: torch would rebuild it from its text
            return Packet(None, skipped, error)

    def fetch(self, epoch: int, index: int, skipped: dict[str, str]) -> Sample | None:
        """One sample. A bad one is replaced by another in training and left out in evaluation."""
        try:
            return self.dataset.load(index, python_stream('sample', self.seed, epoch, index))
        except BadImage as error:
            if not self.skip:
                raise UserError(
                    f'bad image {error}', 'Repair or remove the file, or set bad_images to skip in the dataloader.'
                ) from error
            skipped[error.path or self.dataset.id_of(index)] = error.reason
        if not self.training:
            return None
        for other in replacements(len(self.dataset), self.seed, epoch, index):
            try:
                return self.dataset.load(other, python_stream('sample', self.seed, epoch, other, 'for', index))
            except BadImage as error:
                skipped[error.path or self.dataset.id_of(other)] = error.reason
        raise RunFailure(
            f'no sample found in place of a bad image: {len(skipped)} could not be decoded{_first(skipped)}',
            'Look at these files: the dataset, or the disk below it, is damaged.',
        )


def replacements(count: int, seed: int, epoch: int, index: int) -> Iterator[int]:
    """Up to 32 different random samples to try in place of a bad one. (A neighbour would come twice in every epoch.)"""
    stream = python_stream('replacement', seed, epoch, index)
    tried = {index}
    while len(tried) < min(REPLACEMENTS + 1, count):
        other = int(stream.random() * count)
        if other not in tried:
            tried.add(other)
            yield other


class Loader:
    """An iterator over the batches of a plan, for one pass. ``close``, or the end of a ``with`` block, stops the workers."""

    def __init__(
        self, dataset: Dataset, plan: Iterable[list[Place]], settings: LoaderSettings, seed: int, training: bool
    ) -> None:
        self.skipped: dict[str, str] = {}  # path -> reason; of this rank, since the loader was created
        self._settings = settings
        self._count = len(dataset)  # the dataset lists its files here, once, and not in every worker
        workers = settings.num_workers
        self._torch_loader: DataLoader[Any] = DataLoader(
            Fetcher(dataset, seed, training, settings.bad_images == 'skip'),  # type: ignore[arg-type]
            batch_sampler=plan,  # type: ignore[arg-type]
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            num_workers=workers,
            prefetch_factor=settings.prefetch if workers else None,
            pin_memory=settings.pin_memory and torch.cuda.is_available(),
            worker_init_fn=_prepare_worker,
            generator=torch.Generator().manual_seed(derive_seed('loader', seed)),  # not the global generator
        )
        self._packets: Iterator[Packet] | None = None
        self._stop: Finalize | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self._closed:
            raise StopIteration
        try:
            while True:
                packet = self._next_packet()
                self._note(packet.skipped)
                if packet.error is not None:
                    raise packet.error
                if packet.batch is not None:
                    return packet.batch
        except BaseException as error:
            self.close()
            if self._settings.num_workers and _tells_of_a_death(error):
                raise RunFailure(
                    f'a worker that loads images died: {error}',
                    'Usually memory or shared memory ran out: lower num_workers or prefetch in the dataloader.',
                ) from error
            raise

    def close(self) -> None:
        """Stop the workers. The iterator is then exhausted."""
        self._closed = True
        if self._stop is not None:
            self._stop()
        self._stop = self._packets = None

    def _next_packet(self) -> Packet:
        if self._packets is None:
            with _signals_held_back():
                self._packets = iter(self._torch_loader)
            # also runs when the loader is garbage-collected, and at exit before multiprocessing waits for the workers
            self._stop = Finalize(self, _stop_workers, (self._packets,), exitpriority=10)
        return next(self._packets)

    def _note(self, skipped: dict[str, str]) -> None:
        for path, reason in skipped.items():
            if path not in self.skipped:
                self.skipped[path] = reason
                logger.warning('skipped bad image %s: %s (%d so far)', path, reason, len(self.skipped))
        cap = self._settings.bad_image_cap
        allowed = allowed_bad(cap, self._count)
        if len(self.skipped) > allowed:
            raise RunFailure(
                f'{len(self.skipped)} bad images of {self._count}, and the limit of {cap:g} allows {allowed}'
                f'{_first(self.skipped)}',
                'Repair or remove the files, or raise the limit: bad_images_limit, or bad_image_cap in the dataloader.',
            )


def _first(skipped: dict[str, str]) -> str:
    lines = [f'\n  {path}: {reason}' for path, reason in list(skipped.items())[:SHOWN]]
    return ''.join(lines) + (f'\n  ... and {len(skipped) - SHOWN} more' if len(skipped) > SHOWN else '')


def _tells_of_a_death(error: BaseException) -> bool:
    """Whether ``error`` means that a worker died: torch's own error, or a broken pipe to the worker. Errors raised inside a
    worker begin with 'Caught'."""
    if isinstance(error, ConnectionError | EOFError):
        return not str(error).startswith('Caught')
    return isinstance(error, RuntimeError) and str(error).startswith('DataLoader worker')


def _as_it_is(packet: Packet) -> Packet:
    return packet


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Block the stop signals while workers are started: a worker inherits this until it ignores the signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_worker(_: int) -> None:
    """Ignore the signals that stop a run. They go to the whole process group, and the main process, which handles them,
    needs its workers until it ends."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # signals that arrived meanwhile are ignored too
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this worker when the main process is killed. torch's own check runs only while a worker waits for indices."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK)
    os._exit(1)


def _stop_workers(packets: Any) -> None:
    """Shut down the workers of torch's iterator, then kill those still alive: they ignore SIGTERM."""
    workers = list(getattr(packets, '_workers', ()))
    shut_down = getattr(packets, '_shutdown_workers', None)
    if shut_down is not None:
        try:
            shut_down()
        except RuntimeError as error:
            # torch's SIGCHLD handler can report a dead worker during the clean-up; torch completes the clean-up all the same
            if not _tells_of_a_death(error):
                raise
    for worker in workers:
        if worker.is_alive():
            worker.kill()
        worker.join()
