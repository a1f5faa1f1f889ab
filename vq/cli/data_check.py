"""Everything about a folder of images that matters before training, and the line to train on it.

Files are only read. A sheet of sample images is written to work_dirs/data/NAME/sheet.png, NAME being that of the folder.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from vq.cli import data_report
from vq.cli.next_steps import say_next
from vq.core import environment
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.data.survey.survey import Survey

HELD_OUT = 0.1  # of configs/photos
PHOTO_SIZE = 64  # the image_size of configs/photos
SHEET_ROWS, SHEET_COLUMNS = 12, 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folder', metavar='FOLDER', type=Path, help='the folder that holds the images')
    parser.add_argument('--json', metavar='FILE', type=Path, help='also write what was found to a file')
    parser.add_argument(
        '--held-out', type=float, default=HELD_OUT, metavar='F', help='fraction for validation (default: %(default)s)'
    )
    parser.add_argument('--workers', type=int, default=None, metavar='N', help='processes that read images (default: cores)')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs'), help='where the sheet is written (default: work_dirs)'
    )


def run(options: argparse.Namespace) -> int:
    from vq.assembly import logs
    from vq.data.survey.survey import survey
    from vq.runners.progress import ProgressBar

    if not 0 <= options.held_out < 1:
        raise UserError(f'--held-out is {options.held_out:g}', 'It is a fraction of the images, from 0 to below 1.')
    workers = environment.usable_cores() if options.workers is None else options.workers
    logs.start()
    with contextlib.ExitStack() as bar:
        found = survey(
            options.folder,
            options.held_out,
            workers,
            lambda count: bar.enter_context(ProgressBar('reading', count, 'images')).advance,
        )
    picture = work_folder(options.work_dir, found.root) / 'sheet.png'
    write_sheet(found, picture)
    data_report.show(found, picture)
    if options.json is not None:
        from vq.io import atomic

        options.json.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(
            options.json, json.dumps(found.plain(), indent=1, ensure_ascii=False).encode(errors='backslashreplace')
        )
        print(f'written: {options.json}')
    say_next(*next_lines(found))
    return 0


def work_folder(work_dir: Path, root: Path) -> Path:
    """Where pictures about a folder of images go: ``work_dirs/data/NAME``."""
    name = root.resolve().name.lstrip('.')
    return work_dir / 'data' / (name if name.isprintable() and name else 'images')


def write_sheet(found: Survey, path: Path) -> None:
    """For each class, some images as validation shows them to the model."""
    import io
    import random

    from vq.data.decode import BadImage, decode_image
    from vq.data.survey.sheet import sheet
    from vq.data.transforms import none
    from vq.io import atomic

    size = min(found.image_size, 128)
    rows = []
    for name, members in samples(found):
        images = []
        for index in members:
            try:
                image = decode_image(found.root / found.listing.images[index])
                images.append(none(image, random.Random(0), image_size=size))
            except BadImage:  # too long and narrow, or changed since
                continue
        if images:
            rows.append((name, images))
    if rows:
        stream = io.BytesIO()
        sheet(rows, size).save(stream, 'PNG')
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, stream.getvalue())


def samples(found: Survey) -> list[tuple[str, list[int]]]:
    """(words, images): a row for each class, evenly spread over it; without classes, rows of all images."""
    import numpy as np

    good = np.flatnonzero(found.good)
    if found.layout.labels is None:
        spread = good[np.linspace(0, len(good) - 1, min(len(good), 4 * SHEET_COLUMNS)).astype(int)].tolist()
        rows = [spread[first : first + SHEET_COLUMNS] for first in range(0, len(spread), SHEET_COLUMNS)]
        return [('all images' if number == 0 else '', row) for number, row in enumerate(rows)]
    names, found_rows = found.layout.categories, []
    for label in np.unique(np.linspace(0, len(names) - 1, min(len(names), SHEET_ROWS)).astype(int)):
        own = good[found.layout.labels[good] == label]
        if len(own):
            spread = own[np.linspace(0, len(own) - 1, min(len(own), SHEET_COLUMNS)).astype(int)].tolist()
            found_rows.append((f'{label}: {names[label]}', spread))
    return found_rows


def next_lines(found: Survey) -> list[str]:
    """The command that trains on the folder; the check again where training would refuse it."""
    from vq.data.held_out import share_for

    if found.listing.faults:
        return [f'vq data check {shlex.quote(str(found.given))}']
    pairs = [f'data_root={as_value(found.root)}']
    if found.layout.kind != 'split folders':
        share = found.share
        if not found.per_split().get('validation'):
            share = share_for([name for name, good in zip(found.listing.images, found.good, strict=True) if good]) or share
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
