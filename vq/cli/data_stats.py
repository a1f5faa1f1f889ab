"""Mean and deviation of each channel, images and classes of each split, exactly: whole numbers are added.

Images are looked at as validation shows them, those of the training split too. A FOLDER is the dataset 'folder':
vq data stats photos image_size=64.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.cli import data_source
from vq.core import environment
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.data.survey.stats import Stats


def add_arguments(parser: argparse.ArgumentParser) -> None:
    data_source.add_source(parser)
    parser.add_argument('--json', metavar='FILE', type=Path, help='instead of work_dirs/data/NAME/stats.json')
    parser.add_argument('--workers', type=int, default=None, metavar='N', help='processes that read images (default: cores)')


def run(options: argparse.Namespace) -> int:
    from vq.assembly import logs
    from vq.assembly.data import open_splits, validation_transform
    from vq.data.spread import spread
    from vq.data.survey.stats import Look, gather, look_at
    from vq.io import atomic
    from vq.runners.progress import ProgressBar

    workers = environment.usable_cores() if options.workers is None else options.workers
    logs.start()
    config = data_source.compose_source(options)
    splits = open_splits(config, options.split)
    how, transform = validation_transform(config)
    found: dict[str, Any] = {}
    for name, split in splits.items():
        look = Look(split.dataset, transform, own=name == 'validation')
        with contextlib.ExitStack() as stack:
            bar = stack.enter_context(ProgressBar(f'reading {name}', len(split.dataset), 'images'))
            stats = gather(split.dataset, spread(look_at, look, range(len(split.dataset)), workers, bar.advance))
        if not stats.images:
            raise UserError(
                f'none of the {len(split.dataset)} images of {split.dataset.name}, split {name}, can be read',
                f'vq data check {options.config} says why.',
            )
        found[name] = stats.plain(split.dataset.categories)
        print(line(name, stats), flush=True)
    first = next(iter(splits.values())).dataset
    file = options.json or data_source.work_folder(options.work_dir, first.name) / 'stats.json'
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_json(file, {'dataset': first.name, 'transform': how, 'splits': found})
    print(f'written: {file}')
    return 0


def line(name: str, stats: Stats) -> str:
    mean, std = stats.moments('0..1')
    classes = f' of {len(stats.categories)} classes' if stats.categories else ''
    bad = f', {len(stats.bad)} bad' if stats.bad else ''
    figures = ', '.join(f'{what} {" ".join(f"{value:.6f}" for value in row)}' for what, row in (('mean', mean), ('std', std)))
    return f'{name}: {stats.images:,} images{classes}{bad}, {figures} (R G B in [0, 1])'
