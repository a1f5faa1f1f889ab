"""The loader: loads the batches of a plan, in this process or in worker processes, and handles bad images.

A sample depends on (seed, epoch, index) only, so batches are the same for any number of workers. The loader does not use
the random generators of the process that iterates.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.util import Finalize
from typing import Any, Literal, Self

import numpy as np
import torch
from torch.utils.data import DataLoader

from vq.core.errors import ConfigError, RunFailure, UserError
from vq.core.random import derive_seed, python_stream
from vq.core.records import Batch
from vq.data.bad_images import allowed_bad
from vq.data.buckets import Size, bucket_plan, bucket_sizes, buckets_of, sized, sizes_of
from vq.data.collate import Rows, collate
from vq.data.decode import BadImage, Fallbacks, noting_fallbacks
from vq.data.plan import Place, SizedPlace, training_plan
from vq.data.slots import Slots, Where, received
from vq.data.workers import Reading, garbage_left_alone, prepare_worker, signals_held_back, stop_workers, tells_of_a_death
from vq.interfaces import Dataset, Sample

REPLACEMENTS = 32  # other samples that are tried in place of a bad one
SHOWN = 5  # bad files that an error names

logger = logging.getLogger('vq')


@dataclasses.dataclass
class LoaderSettings:
    """``bad_image_cap``: fraction of the dataset that can be skipped; above 0 a few files of any dataset can be.

    ``aspect_buckets``: training images have about this number squared of pixels, in one of several shapes: see ``buckets.py``.
    The transform must be ``bucketed``, or another that asks for ``wanted_size``.
    """

    batch_size: int
    num_workers: int = 0
    prefetch: int = 2  # batches that each worker prefetches
    pin_memory: bool = False  # ignored without CUDA
    batch_size_in_total: bool = False  # batch_size is that of all ranks together
    bad_images: Literal['raise', 'skip'] = 'raise'
    bad_image_cap: float = 0.2
    aspect_buckets: int | None = None
    bucket_multiple: int = 32  # the sides of buckets are multiples of this
    bucket_ratio: float = 2.0  # the largest of the longer side of a bucket to the shorter one

    def __post_init__(self) -> None:
        for name, least in (('batch_size', 1), ('num_workers', 0), ('prefetch', 1)):
            if getattr(self, name) < least:
                raise ConfigError(f'{name} is {getattr(self, name)}', f'It must be at least {least}.')
        if self.bad_images not in ('raise', 'skip') or not 0 <= self.bad_image_cap <= 1:
            raise ConfigError(
                f'bad_images is {self.bad_images!r} with a cap of {self.bad_image_cap}',
                "Use 'raise' or 'skip', and a cap from 0 to 1.",
            )

        if self.aspect_buckets is not None:
            bucket_sizes(self.aspect_buckets, self.bucket_multiple, self.bucket_ratio)

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
    """The result of a worker: a batch, the files skipped for it (path -> reason), an error for the user, and the files that
    Pillow decoded although another decoder was asked for."""

    batch: Batch | None
    skipped: dict[str, str]
    error: UserError | None = None
    fallbacks: Fallbacks = dataclasses.field(default_factory=dict)
    where: Where | None = None  # the images, if they are in a slot

    def opened(self) -> Self:
        """In the main process: with the batch as it was made."""
        return self if self.batch is None else dataclasses.replace(self, batch=received(self.batch, self.where), where=None)

    def pin_memory(self) -> Self:
        """Called by torch's loader, in a thread of the main process."""
        packet = self.opened()
        return packet if packet.batch is None else dataclasses.replace(packet, batch=packet.batch.pin_memory())


@dataclasses.dataclass
class Fetcher:
    """Loads batches; runs in the workers."""

    dataset: Dataset
    seed: int
    training: bool
    skip: bool
    reading: Reading | None = None  # None: in the process of the caller
    slots: Slots | None = None

    def __getitems__(self, places: Sequence[Place | SizedPlace]) -> Packet:
        size = next((size for _, _, *sizes in places for size in sizes), None)
        lending = contextlib.nullcontext() if self.slots is None else self.slots.loan()
        with noting_fallbacks() as fallbacks, sized(size), lending as loan:
            packet = self.packet([(epoch, index) for epoch, index, *_ in places], size)
        packet.fallbacks = fallbacks
        if loan is not None:
            packet.batch, packet.where = loan.sent(packet.batch)
        if self.reading is not None:
            self.reading.note(-1)
        return packet

    def packet(self, places: list[Place], size: Size | None) -> Packet:
        """Load and join the samples of a batch."""
        skipped: dict[str, str] = {}
        try:
            whole = self._at_once(places) if size is None else None
            if whole is not None:
                return Packet(whole, skipped)
            own: Callable[[Sequence[Sample]], Batch] | None = getattr(self.dataset, 'collate', None)
            rows, samples = Rows(len(places)), []
            for epoch, index in places:
                sample = self.fetch(epoch, index, skipped)
                if sample is not None:
                    samples.append(rows.keep(sample) if own is None else sample)
                sample = None  # its memory is free for the next one
            fields = getattr(self.dataset, 'fields', None)
            batch = None if not samples else collate(samples, fields, rows) if own is None else own(samples)
            if size is not None and batch is not None and batch.image is not None and batch.image.shape[-2:] != size:
                height, width = batch.image.shape[-2:]
                raise UserError(
                    f'the images of a bucket of {size[0]} x {size[1]} pixels are {height} x {width}',
                    "Set the transform of the dataset to 'VQTransformRegistry.bucketed', or aspect_buckets to None.",
                )
            return Packet(batch, skipped)
        except UserError as error:  # passed as an object: torch would rebuild it from its text
            return Packet(None, skipped, error)

    def _at_once(self, places: list[Place]) -> Batch | None:
        """The batch by ``load_batch`` of the dataset. None: images are loaded one by one, also if one of them is bad."""
        told = (lambda index: None) if self.reading is None else self.reading.note
        told(places[0][1])
        try:
            return self.dataset.load_batch([index for _, index in places], told)
        except BadImage:
            return None

    def fetch(self, epoch: int, index: int, skipped: dict[str, str]) -> Sample | None:
        """One sample. A bad one is replaced by another in training and left out in evaluation."""
        try:
            draws = getattr(self.dataset, 'draws', True)
            return self.load(index, python_stream('sample', self.seed, epoch, index) if draws else _UNUSED)
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
                return self.load(other, python_stream('sample', self.seed, epoch, other, 'for', index))
            except BadImage as error:
                skipped[error.path or self.dataset.id_of(other)] = error.reason
        raise RunFailure(
            f'no sample found in place of a bad image: {len(skipped)} could not be decoded{_first(skipped)}',
            'Look at these files: the dataset, or the disk below it, is damaged.',
        )

    def load(self, index: int, stream: random.Random) -> Sample:
        if self.reading is not None:
            self.reading.note(index)
        return self.dataset.load(index, stream)


_UNUSED = random.Random(0)  # for datasets that do not draw


def replacements(count: int, seed: int, epoch: int, index: int) -> Iterator[int]:
    """Up to 32 different random samples to try in place of a bad one. (A neighbour would come twice in every epoch.)"""
    stream = python_stream('replacement', seed, epoch, index)
    tried = {index}
    while len(tried) < min(REPLACEMENTS + 1, count):
        other = int(stream.random() * count)
        if other not in tried:
            tried.add(other)
            yield other


def training_batches(
    dataset: Dataset, settings: LoaderSettings, rank: int, world: int, seed: int, start: int
) -> Iterator[Sequence[Place | SizedPlace]]:
    """The plan of a training: with aspect-ratio buckets if the settings have them. ``start``: samples already used."""
    batch_size = settings.per_rank(world)
    if settings.aspect_buckets is None:
        return training_plan(len(dataset), batch_size, rank, world, seed, start)
    buckets = bucket_sizes(settings.aspect_buckets, settings.bucket_multiple, settings.bucket_ratio)
    numbers = buckets_of(sizes_of(dataset), buckets)
    numbered = enumerate(np.bincount(numbers).tolist())
    counts = ', '.join(f'{count} of {buckets[bucket][0]} x {buckets[bucket][1]}' for bucket, count in numbered if count)
    logger.info('aspect-ratio buckets (height x width): %s', counts)
    return bucket_plan(numbers, buckets, batch_size, rank, world, seed, start)


class Loader:
    """An iterator over the batches of a plan, for one pass. ``close``, or the end of a ``with`` block, stops the workers."""

    def __init__(
        self,
        dataset: Dataset,
        plan: Iterable[Sequence[Place | SizedPlace]],
        settings: LoaderSettings,
        seed: int,
        training: bool,
    ) -> None:
        self.skipped: dict[str, str] = {}  # path -> reason; of this rank, since the loader was created
        self.fallbacks: Fallbacks = {}  # kind of file -> how many Pillow decoded instead of the backend, and the first
        self._dataset, self._settings = dataset, settings
        self._count = len(dataset)  # the dataset lists its files here, once, and not in every worker
        workers = settings.num_workers
        self._reading = Reading(workers) if workers else None
        self._slots = Slots(workers, settings.prefetch) if workers else None
        self._torch_loader: DataLoader[Any] = DataLoader(
            Fetcher(dataset, seed, training, settings.bad_images == 'skip', self._reading, self._slots),  # type: ignore[arg-type]
            batch_sampler=plan,  # type: ignore[arg-type]
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            num_workers=workers,
            prefetch_factor=settings.prefetch if workers else None,
            pin_memory=settings.pin_memory and torch.cuda.is_available(),
            worker_init_fn=prepare_worker,
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
                self._note(packet)
                if packet.error is not None:
                    raise packet.error
                if packet.batch is not None:
                    return packet.batch
        except BaseException as error:
            died = self._reading is not None and tells_of_a_death(error)
            read = self._reading.of_the_dead(self._packets) if self._reading is not None and died else []
            self.close()
            if died:
                names = ' and '.join(self._name(index) for index in read)
                raise RunFailure(
                    f'a worker that loads images died{f" while it was reading {names}" if names else ""}: {error}',
                    'Usually memory or shared memory ran out: lower num_workers or prefetch in the dataloader. '
                    'If it is the same file again, that file is the cause.',
                ) from error
            raise

    def close(self) -> None:
        """Stop the workers. The iterator is then exhausted."""
        if self.fallbacks and not self._closed:
            counts = ', '.join(f'{count} {kind}' for kind, (count, _) in self.fallbacks.items())
            logger.info('Pillow decoded files instead of the backend that was asked for: %s', counts)
        self._closed = True
        if self._stop is not None:
            self._stop()
        self._stop = self._packets = None

    def _next_packet(self) -> Packet:
        if self._packets is None:
            with signals_held_back(), garbage_left_alone():
                self._packets = iter(self._torch_loader)
            # also runs when the loader is garbage-collected, and at exit before multiprocessing waits for the workers
            self._stop = Finalize(self, stop_workers, (self._packets,), exitpriority=10)
        if self._slots is not None:
            self._slots.give_back()
        return next(self._packets).opened()

    def _name(self, index: int) -> str:
        return self._dataset.path_of(index) or self._dataset.id_of(index)

    def _note(self, packet: Packet) -> None:
        for kind, (count, first) in packet.fallbacks.items():
            before, path = self.fallbacks.get(kind, (0, first))
            self.fallbacks[kind] = before + count, path
            if not before:
                logger.info('Pillow decodes %s instead, such as %s', kind, first)
        for path, reason in packet.skipped.items():
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


def _as_it_is(packet: Packet) -> Packet:
    return packet
