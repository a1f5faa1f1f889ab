"""Writing a split as packed images: by ranks and by worker processes, each sample exactly once, resumable.

A shard covers a fixed range of the dataset and depends on nothing else, so neither the number of ranks and workers nor a
restart changes a byte.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vq.core import collectives
from vq.core.errors import UserError
from vq.data.decode import BadImage
from vq.data.packing.rows import Packing
from vq.data.spread import spread
from vq.interfaces import Dataset
from vq.io.manifest import NAME, Manifest, read_manifest
from vq.io.packed import KIND, Row, columns_of
from vq.io.ranks import run_on_all_ranks
from vq.io.shards import ShardRange, ShardWriter

SHARD_BYTES = 2**28  # of pixels, about; a worker holds two shards of them while it writes
SMALLEST, LARGEST = 64, 8192  # samples of a shard, if the number is not given

logger = logging.getLogger('vq')

Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]  # total -> a context -> advance(count)


@dataclasses.dataclass
class Job:
    """What a worker process needs."""

    dataset: Dataset
    writer: ShardWriter
    packing: Packing
    skip: bool  # leave bad images out, and list their ids

    def write(self, part: ShardRange, advance: Callable[[int], None] = lambda count: None) -> collections.Counter[str]:
        """Write one shard. Returns what was done with its images."""
        rows: list[Row] = []
        skipped: list[str] = []
        done: collections.Counter[str] = collections.Counter()
        for index in range(part.start, part.stop):
            try:
                rows.append(self.packing.row(self.dataset, index, done))
            except BadImage as error:
                if not self.skip:
                    raise UserError(
                        f'bad image {error}',
                        'Repair or remove the file, or give --bad-images skip, which leaves it out and lists it.',
                    ) from error
                logger.warning('skipped bad image %s', error)
                skipped.append(self.dataset.id_of(index))
            advance(1)
        self.writer.write(part, columns_of(rows), [row.id for row in rows], skipped)
        return done


def shard_size_for(folder: Path, packing: Packing) -> int:
    """Samples of a shard: those of the set that was begun, otherwise by the size of the images."""
    if (folder / NAME).is_file():
        return read_manifest(folder).shard_size
    return min(max(SHARD_BYTES // (3 * (packing.max_resolution or 600) ** 2), SMALLEST), LARGEST)


def pack(
    dataset: Dataset,
    folder: Path,
    packing: Packing,
    progress: Progress,
    shard_size: int | None = None,
    workers: int = 0,
    skip: bool = False,
) -> tuple[Manifest, collections.Counter[str]]:
    """Write the shards of ``dataset`` that are missing; on all ranks. Returns the manifest, and what was done with images."""
    size = shard_size or shard_size_for(folder, packing)
    writer = ShardWriter(folder, KIND, len(dataset), size, producer_of(dataset, packing))
    collectives.barrier()  # the manifest is there
    job = Job(dataset, writer, packing, skip)
    counts = run_on_all_ranks(lambda: _write_share(job, workers, progress), 'packing images')
    run_on_all_ranks(lambda: writer.finish() if collectives.is_main() else None, 'completing the packed images')
    return read_manifest(folder), sum(counts, collections.Counter())


def producer_of(dataset: Dataset, packing: Packing) -> dict[str, Any]:
    """The entry ``producer`` of the manifest. A dataset of the same fingerprint and settings goes on with a set."""
    return {
        'dataset': dataset.name,
        'split': dataset.split,
        'dataset_fingerprint': dataset.fingerprint(),
        'backend': getattr(dataset, 'backend', 'pillow'),  # the decoder: others differ by a few levels
        'decode_to': getattr(dataset, 'decode_to', None),
        **packing.describe(),
        'categories': None if dataset.categories is None else [*dataset.categories],
        'label_names': None if dataset.label_names is None else [*dataset.label_names],
        'fields': {name: dataclasses.asdict(field) for name, field in dataset.fields.items()},
    }


def _write_share(job: Job, workers: int, progress: Progress) -> collections.Counter[str]:
    pending = job.writer.pending()
    done: collections.Counter[str] = collections.Counter()
    with progress(sum(map(len, pending))) as advance:
        if workers < 2 or len(pending) < 2:
            for part in pending:
                done += job.write(part, advance)
            return done
        found = spread(_write_one, job, pending, workers, lambda count: None, chunk=1, worth=2)
        for part, counts in zip(pending, found, strict=True):
            done += counts
            advance(len(part))
    return done


def _write_one(job: Job, part: ShardRange) -> collections.Counter[str]:
    return job.write(part)
