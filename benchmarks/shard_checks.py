"""What comparing the SHA-256 of token shards costs in the first epoch, next to reading the same epoch once more.

    python benchmarks/shard_checks.py            about two minutes
    python benchmarks/shard_checks.py --quick    a few seconds

A set in the form of ImageNet's (256 tokens of 16 bits a sample, 8,192 samples a shard) is read through the loader, without a
model: training only lowers the share. Files are in the page cache. In each repetition a new ``ShardSet`` reads one epoch in
random order with checks, and one after them. First, samples that were read with and without a check must be equal.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ['XDG_CACHE_HOME'] = tempfile.mkdtemp()  # no memory of earlier runs, and none is left

import numpy as np
from _common import arguments, finish, machine, must_be_equal, table

from vq.data.datasets.tokens import TokenDataset
from vq.data.loading import Loader, LoaderSettings
from vq.data.plan import training_plan
from vq.io import checked
from vq.io.shards import ShardWriter

TOKENS, CODES, SHARD = 256, 16384, 8192


def write(folder: Path, count: int) -> None:
    writer = ShardWriter(folder, 'tokens', count, SHARD, {'codebook_size': CODES})
    for part in writer.pending(0, 1):
        tokens = np.random.default_rng(part.index).integers(0, CODES, (len(part), 1, 16, 16))
        ids = [f'train/n01440764/n01440764_{index}.JPEG' for index in range(part.start, part.stop)]
        writer.write(part, {'tokens': tokens, 'category': np.arange(part.start, part.stop) % 1000}, ids)
    writer.finish()


def check_equal(folder: str) -> None:
    """The first batches of a set that is checked, and of one that was checked before."""
    dataset = TokenDataset(folder=folder)
    places = [0, 5, SHARD, len(dataset) - 1]
    first = [dataset.shards[place]['tokens'].copy() for place in places]
    again = [dataset.shards[place]['tokens'] for place in places]
    must_be_equal('tokens read with the check and after it', all(map(np.array_equal, first, again)))
    must_be_equal('a shard is checked once', dataset.shards.checked.costs().shards == len({p // SHARD for p in places}))


def epoch(dataset: TokenDataset, workers: int, number: int) -> float:
    """Seconds of wall time."""
    count, batch = len(dataset), 256
    plan = training_plan(count, batch, 0, 1, seed=0, start=number * count)
    started = time.perf_counter()
    with Loader(dataset, plan, LoaderSettings(batch, workers), 0, training=True) as loader:
        for _ in range(count // batch):
            next(loader)
    return time.perf_counter() - started


def main() -> None:
    options, where = arguments(__doc__).parse_args(), machine()
    count, repeats = (32_768, 1) if options.quick else (262_144, 3)
    checked.SETTLED = 1 << 62  # nothing is recorded, so each new set is checked again
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), count)
        check_equal(folder)
        for workers in (0, 2):
            first, second, spent = [], [], []
            for _ in range(repeats):
                dataset = TokenDataset(folder=folder)
                first.append(epoch(dataset, workers, 0))
                costs = dataset.shards.checked.costs()
                spent.append(costs.seconds)
                second.append(epoch(dataset, workers, 1))
            values = [*map(statistics.median, (first, second, spent))]
            share = 100 * statistics.median(spent[k] / first[k] for k in range(repeats))
            rows.append([f'{workers} workers', *values, share])
            figures[f'{workers} workers'] = dict(zip(('first', 'second', 'sha256'), values, strict=True)) | {'percent': share}
        size = costs.size / 1e6
    columns = ['', 'first epoch, s', 'second epoch, s', 'SHA-256, s of CPU', '% of the first']
    table(f'{count:,} samples, {size:.0f} MB in {costs.shards} shards, medians of {repeats}', columns, rows)
    finish('shard_checks', options.quick, where, figures)


if __name__ == '__main__':
    main()
