"""Images per second of loaders: packed images, folders, and five peers, with the same pixels.

    python benchmarks/loading.py            about 20 minutes, and 4 more in the first run, which writes the images
    python benchmarks/loading.py --quick    under a minute; its figures are meaningless

4,000 JPEG files of 500 x 375 with the statistics of photographs are resized to a short side of 256 pixels and cropped. Each
side is loaded by one and by two worker processes, to batches of uint8 and of floats in [-1, 1]. Peers come with
``pip install 'vq[bench]'``. First all sides must have the pixels of torchvision's ImageFolder: the fast decoder and resampler
within 2 grey levels, the others exactly; packed JPEG, which is compressed twice, as Pillow decodes it.

A figure is the median of 3 passes, in turns, from the first batch to the last: so without the start of the workers. "Decode
only" is the fastest decoder on bytes in memory, in one process, without anything else: the roof of packed JPEG with one
worker. Both are measured in turns, as the speed of a machine can change within minutes; ``--roof`` measures nothing else.
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from _common import arguments, finish, machine, must_be_equal, rounded, table

from vq.core import environment

os.environ.setdefault('OMP_NUM_THREADS', '1')
environment.prepare()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from _loading_data import once, write_images  # noqa: E402
from _loading_sides import BATCH, Side, decode_only, in_order, sides  # noqa: E402
from torch import Tensor  # noqa: E402

from vq.data.datasets.packed import PackedDataset  # noqa: E402

COUNT, REPEATS = 4000, 3
PAIRS, SECONDS = 40, 1.0  # turns of packed JPEG and its roof, and how long one takes
AIMS = {  # side, floats -> times as fast as ImageFolder, with one worker
    ('packed raw', False): 20.0,
    ('packed raw', True): 7.0,
    ('folder', False): 2.2,
}
OF_ROOF = 0.9  # packed JPEG


def images_of(side: Side, workers: int, floats: bool, limit: int) -> Iterator[Tensor]:
    """Batches of a pass; ours are endless."""
    assert side.open is not None
    seen = 0
    for batch in side.open(workers, floats):
        yield batch
        seen += len(batch)
        if seen >= limit:
            return


def seconds_per_image(batches: Iterable[Tensor]) -> float:
    """From the first batch to the last."""
    iterator = iter(batches)
    next(iterator)
    begin, seen = time.perf_counter(), 0
    for batch in iterator:
        seen += len(batch)
    return (time.perf_counter() - begin) / seen


def check_pixels(found: list[Side], count: int) -> None:
    """All sides in the order of the files, against ImageFolder without shuffling."""
    first = found[0].open
    assert isinstance(first, functools.partial)
    limit = min(count, 4 * BATCH)
    exact = _joined(first(0, False, shuffle=False), limit)
    for side in found[1:]:
        if side.open is None:
            continue
        assert isinstance(side.open, functools.partial)
        own = side.open.args[0] if not isinstance(side.open.args[0], Path) else None
        if own is not None:
            batches: Iterable[Tensor] = in_order(own, 1)
        else:
            batches = side.open(0, False) if side.name == 'WebDataset' else side.open(0, False, shuffle=False)
        against = exact
        if isinstance(own, PackedDataset) and side.levels:
            against = _joined(in_order(PackedDataset(own.root, transform=own.transform), 0), limit)
        levels = int((_joined(batches, limit).int() - against.int()).abs().max())
        must_be_equal(side.name, levels <= min(side.levels, 2), f'at most {levels} grey levels')


def _joined(batches: Iterable[Tensor], limit: int) -> Tensor:
    found: list[Tensor] = []
    for batch in batches:
        found.append(batch)
        if sum(map(len, found)) >= limit:
            break
    return torch.cat(found)[:limit]


def measure(found: list[Side], count: int, workers: int, floats: bool, repeats: int) -> dict[str, list[float]]:
    """Seconds per image of each side, in turns."""
    there = [side for side in found if side.open is not None]
    seconds: dict[str, list[float]] = {side.name: [] for side in there}
    for turn in range(repeats):
        start = turn % len(there)
        for side in [*there[start:], *there[:start]]:
            batches = images_of(side, workers, floats, count if repeats == 1 else side.epochs * count)
            seconds[side.name].append(seconds_per_image(batches))
    return seconds


def roofs(images: Path, cache: Path, repeats: int) -> dict[str, float]:
    """Images per second of decoding alone."""
    found = {}
    for which, work in decode_only(images, cache).items():
        work()  # a first import
        rates = []
        for _ in range(repeats):
            begin = time.perf_counter()
            rates.append(work() / (time.perf_counter() - begin))
        found[which] = statistics.median(rates)
    return found


def against_roof(side: Side, decode: Callable[[], int], pairs: int, seconds: float) -> dict[str, Any]:
    """Packed JPEG with one worker as a part of decoding alone, which is measured before and after each turn."""

    def rate(work: Callable[[], int]) -> float:
        begin, seen = time.perf_counter(), 0
        while seen == 0 or time.perf_counter() < begin + seconds:
            seen += work()
        return seen / (time.perf_counter() - begin)

    batches = iter(images_of(side, 1, False, 2**62))
    for _ in range(8):  # workers start, and slots are filled
        next(batches)
    decode()
    roof, shares = [rate(decode)], []
    for _ in range(pairs):
        for _ in range(6):  # batches that were loaded while this process decoded
            next(batches)
        ours = rate(lambda: len(next(batches)))
        roof.append(rate(decode))
        shares.append(2 * ours / sum(roof[-2:]))
    lower, upper = np.quantile(shares, [0.25, 0.75])
    return {
        'pairs': pairs,
        'share': rounded(statistics.median(shares)),
        'quartiles': [rounded(float(lower)), rounded(float(upper))],
        'decode_only': rounded(statistics.median(roof)),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--folder', type=Path, default=Path('work_dirs/benchmarks/loading'), help='where the images are kept')
    parser.add_argument('--no-aims', action='store_true', help='do not fail if an aim is missed')
    parser.add_argument('--roof', action='store_true', help='measure packed JPEG against its roof, and nothing else')
    options = parser.parse_args()
    where, count = machine(), 2 * BATCH if options.quick else COUNT
    cache = options.folder / str(count)
    images = once(cache / 'images', functools.partial(write_images, count=count))
    found = sides(images, cache)
    check_pixels(found, count)
    jpeg = next(side for side in found if 'packed JPEG' in side.name)
    pairs, turn = (1, 0.0) if options.quick or options.once else (PAIRS, SECONDS)
    of_roof = against_roof(jpeg, decode_only(images, cache)['packed JPEG'], pairs, turn)
    low, high = of_roof['quartiles']
    print(
        f'{jpeg.name}, 1 worker: {of_roof["share"]:.0%} of decoding alone ({low:.0%} to {high:.0%}), median of {pairs} pairs'
    )
    if options.roof:
        finish('loading_roof', options.quick, where, {'images': count, 'batch': BATCH, **of_roof})
        return
    repeats = 1 if options.quick or options.once else REPEATS
    roof = roofs(images, cache, repeats)
    figures: dict[str, Any] = {'images': count, 'batch': BATCH, 'decode_only': {k: rounded(v) for k, v in roof.items()}}
    figures['packed JPEG of its roof'] = of_roof
    missed: list[str] = []
    if not options.quick and of_roof['share'] < OF_ROOF:
        missed.append(f'{jpeg.name} is at {of_roof["share"]:.0%} of decoding alone, and {OF_ROOF:.0%} is the aim')
    for workers in (1,) if options.quick else (1, 2):
        for floats in (False, True):
            seconds = measure(found, count, workers, floats, repeats)
            peer = statistics.median(seconds[found[0].name])
            rows, what = [], f'{workers} worker{"s" * (workers > 1)}, {"float" if floats else "uint8"}'
            figures[what] = {}
            for side in found:
                if side.open is None:
                    rows.append([side.name, 'not installed', None])
                    continue
                rate, ratio = 1 / statistics.median(seconds[side.name]), peer / statistics.median(seconds[side.name])
                rows.append([side.name, rounded(rate), rounded(ratio)])
                figures[what][side.name] = {'images_per_second': rounded(rate), 'times_as_fast': rounded(ratio)}
                missed += _missed(side.name, workers, floats, ratio) if not options.quick else []
            table(what, ['', 'images/s', 'times ImageFolder'], rows)
    table('decode only, one process', ['', 'images/s'], [[name, rounded(rate)] for name, rate in roof.items()])
    figures['missed'] = missed
    finish('loading', options.quick, where, figures)
    if missed and not options.no_aims:
        raise SystemExit('aims missed: ' + '; '.join(missed))


def _missed(name: str, workers: int, floats: bool, ratio: float) -> list[str]:
    if workers > 1:
        return []
    return [
        f'{name} is {ratio:.3g} times as fast as ImageFolder, and {aim:g} is the aim'
        for (part, of_floats), aim in AIMS.items()
        if f'ours, {part}' in name and 'Pillow)' not in name and floats == of_floats and ratio < aim
    ]


if __name__ == '__main__':
    main()
