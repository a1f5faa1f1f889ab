"""Write the images of folders, or the datasets of a CONFIG, as packed images: O/train, O/validation, ...

A split is a few large files, which are memory-mapped and read in any order. Train with the options data=packed data_root=O.
A command that was stopped goes on where it stopped when it is repeated, with any number of ranks and workers:
auto_torchrun -m vq.data pack ... shares the work among ranks.

--max-resolution N makes the longer side of larger images N pixels, as FFCV does. Modes: raw stores pixels, which is exact and
the fastest to read; jpg stores JPEG, and keeps the bytes of JPEG files that need no resizing; proportion compresses a part.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.cli import arguments, data_source
from vq.core import environment
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.data.packing.rows import Packing
    from vq.interfaces import Dataset

SPLITS = ('train', 'validation', 'test', 'predict')
WORTH_PROCESSES = 500  # images; fewer are packed before processes have started


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'config',
        metavar='CONFIG',
        nargs='?',
        help='the datasets of a config, or of a name in configs/datasets',
    )
    arguments.add_pairs(parser)
    parser.add_argument('--output-folder', metavar='O', type=Path, required=True, help='where the packed splits are written')
    for split in SPLITS:
        parser.add_argument(f'--{split}-folder', metavar='FOLDER', type=Path, help=f'the images of the split {split}')
    parser.add_argument(
        '--max-resolution', metavar='N', type=int, help='pixels of the longer side of larger images (default: all are kept)'
    )
    parser.add_argument(
        '--mode', choices=('raw', 'jpg', 'proportion'), default='raw', help='how images are stored (default: %(default)s)'
    )
    parser.add_argument(
        '--compress-probability', metavar='P', type=float, default=0.5, help='proportion: the share of JPEG (default: 0.5)'
    )
    parser.add_argument('--quality', metavar='Q', type=int, default=90, help='of JPEG, 1 to 100 (default: %(default)s)')
    parser.add_argument('--no-classes', action='store_true', help='folders below the given ones are no classes')
    parser.add_argument('--shard-size', metavar='N', type=int, help='images of a file (default: about 256 MB of pixels)')
    parser.add_argument('--workers', metavar='N', type=int, help='processes of each rank (default: cores)')
    parser.add_argument(
        '--bad-images', choices=('raise', 'skip'), default='raise', help='images that cannot be read (default: %(default)s)'
    )


def run(options: argparse.Namespace) -> int:
    environment.prepare()
    from vq.assembly import logs
    from vq.core import collectives
    from vq.data.packing.rows import Packing
    from vq.io.beton import refuse_beton

    if options.config is not None:
        refuse_beton(options.config)
    packing = Packing(options.mode, options.max_resolution, options.quality, options.compress_probability)
    logs.start()
    sources = _of_folders(options) if options.config is None else _of_config(options)
    with _ranks():
        for split, dataset in sources.items():
            _pack(split, dataset, packing, options)
        if collectives.is_main():
            print(f'to train on them: data=packed data_root={shlex.quote(str(options.output_folder))}')
    return 0


def _pack(split: str, dataset: Dataset, packing: Packing, options: argparse.Namespace) -> None:
    from vq.core import collectives
    from vq.data.packing.write import pack

    folder = options.output_folder / split
    local = max(1, environment.number('LOCAL_WORLD_SIZE', 1))
    workers = max(1, environment.usable_cores() // local) if options.workers is None else options.workers
    if options.workers is None and len(dataset) < WORTH_PROCESSES:
        workers = 0
    manifest, done = pack(
        dataset, folder, packing, _bar(split), options.shard_size, workers, skip=options.bad_images == 'skip'
    )
    if collectives.is_main():
        size = sum(entry.size for entry in manifest.shards)
        said = ', '.join(f'{count:,} {what}' for what, count in sorted(done.items()))
        left_out = f', {len(manifest.skipped):,} bad ones left out' if manifest.skipped else ''
        print(
            f'{split}: {manifest.count:,} images in {len(manifest.shards)} shards, {size / 1e6:,.1f} MB, in {folder} '
            f'(now: {said or "nothing, it was complete"}{left_out})'
        )


def _bar(split: str) -> Callable[[int], Any]:
    from vq.core import collectives
    from vq.runners.progress import ProgressBar

    @contextlib.contextmanager
    def progress(total: int) -> Iterator[Callable[[int], None]]:
        with ProgressBar(f'packing {split}', total, 'images', visible=collectives.is_main()) as bar:
            yield bar.advance

    return progress


def _of_folders(options: argparse.Namespace) -> dict[str, Dataset]:
    from vq.data.packing.folders import SplitFolder

    given = {split: folder for split in SPLITS if (folder := getattr(options, f'{split}_folder')) is not None}
    if not given:
        raise UserError('nothing to pack is given', 'Give --train-folder T --validation-folder V, or a CONFIG.')
    return {
        split: SplitFolder(folder, split, not options.no_classes, [other for other in given.values() if other != folder])
        for split, folder in given.items()
    }


def _of_config(options: argparse.Namespace) -> dict[str, Dataset]:
    """The datasets of trainer and validator. What is stored are their samples before any transform."""
    from vq.assembly.data import open_splits

    if any(getattr(options, f'{split}_folder') is not None for split in SPLITS):
        raise UserError('a CONFIG and folders are given', 'Give one of them: a config has its own datasets.')
    splits = open_splits(data_source.compose_source(options))
    return {name: split.dataset for name, split in splits.items()}


@contextlib.contextmanager
def _ranks() -> Iterator[None]:
    """The ranks of this launch as a group, if there are several; they only wait for each other."""
    if environment.ranks() == 1:
        yield
        return
    from vq.strategies.ddp import DDPStrategy

    group = DDPStrategy('cpu', timeout=7 * 86400.0)  # a rank may have hours more to do than another
    group.start()
    try:
        yield
    finally:
        group.stop()
