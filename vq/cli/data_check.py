"""Everything about a folder of images, or the datasets of a config, that matters before training.

Files are only read. A page and a sheet of sample images are written to work_dirs/data/NAME/, NAME being that of the folder or
of the dataset. Of a folder, the last line is the command that trains on it. Of a config, each channel's mean and deviation,
and the time of an epoch are given too.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.cli import data_report, data_source
from vq.cli.data_source import HELD_OUT
from vq.cli.next_steps import say_next
from vq.core import environment
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.data.survey.survey import Survey

PHOTO_SIZE = 64  # the image_size of configs/photos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    data_source.add_source(parser)
    parser.add_argument('--json', metavar='FILE', type=Path, help='also write what was found to a file')
    parser.add_argument(
        '--held-out', type=float, metavar='F', help=f'of a folder: fraction for validation (default: {HELD_OUT})'
    )
    parser.add_argument('--workers', type=int, default=None, metavar='N', help='processes that read images (default: cores)')
    parser.add_argument(
        '--seconds',
        type=float,
        default=4.0,
        metavar='S',
        help='of a config: how long to load batches for the time of an epoch, 0: not at all (default: %(default)s)',
    )


def run(options: argparse.Namespace) -> int:
    folder = data_source.folder_of(options)
    if folder is not None:
        return check_folder(options, folder)
    if options.held_out is not None:
        raise UserError(
            f'--held-out is for a folder, and {options.config} is a config', f'Write held_out={options.held_out:g} after it.'
        )
    from vq.cli import data_check_config

    return data_check_config.run(options)


def check_folder(options: argparse.Namespace, folder: Path) -> int:
    from vq.assembly import logs
    from vq.data.survey.survey import survey
    from vq.report.of_images import write_page
    from vq.runners.progress import ProgressBar

    data_source.refuse_pairs(options, 'Write vq data check folder data_root=FOLDER ...')
    share = HELD_OUT if options.held_out is None else options.held_out
    if not 0 <= share < 1:
        raise UserError(f'--held-out is {share:g}', 'It is a fraction of the images, from 0 to below 1.')
    workers = environment.usable_cores() if options.workers is None else options.workers
    logs.start()
    with contextlib.ExitStack() as bar:
        found = survey(
            folder, share, workers, lambda count: bar.enter_context(ProgressBar('reading', count, 'images')).advance
        )
    place = data_source.work_folder(options.work_dir, found.root.resolve().name)
    size = min(found.image_size, 128)
    sheet = data_report.write_sheet(sheet_rows(found, size), size, place / 'sheet.png')
    data_report.show(found, place / 'sheet.png')
    write_page(place / 'report.html', found.root.resolve().name, found.plain(), data_report.warnings(found), sheet)
    print(f'page: {data_report.clean(str(place / "report.html"))}')
    data_report.write_json(options.json, found.plain())
    say_next(*next_lines(found))
    return 0


def sheet_rows(found: Survey, size: int) -> list[tuple[str, list[Any]]]:
    """For each class, some images as validation shows them to the model."""
    import random

    from vq.data.decode import BadImage, decode_image
    from vq.data.transforms import none

    rows = []
    for name, members in data_report.samples(found):
        images = []
        for index in members:
            try:
                image = decode_image(found.root / found.names[index])
                images.append(none(image, random.Random(0), image_size=size))
            except BadImage:  # too long and narrow, or changed since
                continue
        if images:
            rows.append((name, images))
    return rows


def next_lines(found: Survey) -> list[str]:
    """The command that trains on the folder; the check again where training would refuse it."""
    from vq.data.held_out import share_for

    if found.listing.faults:
        return [f'vq data check {shlex.quote(str(found.given))}']
    pairs = [f'data_root={as_value(found.root)}']
    if found.layout.kind != 'split folders':
        share = found.share
        if not found.per_split().get('validation'):
            share = share_for([name for name, good in zip(found.names, found.good, strict=True) if good]) or share
        if share != HELD_OUT:
            pairs.append(f'held_out={share:g}')
    if found.image_size < PHOTO_SIZE:
        pairs.append(f'image_size={found.image_size}')
    if found.layout.kind == 'mixed':
        pairs.append('classes=False')
    if (limit := data_report.needed_limit(found)) is not None:
        pairs.append(f'bad_images_limit={limit:g}')
    return [f'vq train tok photos/tokenizer.py {shlex.join(pairs)}']


def as_value(path: Path) -> str:
    """A path as the value of ``key=value``: a folder whose name is a Python literal, like 2019, gets ./ before it."""
    text = str(path)
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return f'./{text}'
