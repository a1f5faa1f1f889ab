"""Fetch, unpack, check and convert datasets: ``python -m vq.tools.prepare_data NAME [--root data]``."""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vq.cli import arguments
from vq.cli.errors import command
from vq.core import environment
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.data.prepare.sources import Source

NAMES = ('coco', 'vg', 'celebamask', 'celeba_hq', 'ffhq')
STEPS = {  # dataset -> module and function that make the layout from what was unpacked
    'vg': ('vq.data.prepare.visual_genome', 'prepare'),
    'celebamask': ('vq.data.prepare.celebamask', 'prepare'),
    'celeba_hq': ('vq.data.prepare.faces', 'prepare_celeba_hq'),
    'ffhq': ('vq.data.prepare.faces', 'prepare_ffhq'),
}
YEARS = ('2017', '2014')
EXAMPLES = """
examples:
  python -m vq.tools.prepare_data                   the datasets, and which of them are here
  python -m vq.tools.prepare_data coco --year 2014
  python -m vq.tools.prepare_data celebamask --root /data
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.tools.prepare_data',
        'Fetch datasets, or print the steps where a licence asks you to fetch them yourself; unpack and check them,\n'
        'and write what the datasets of vq read. What is there is not fetched or made again; what broke off goes on.',
    )
    parser.epilog = EXAMPLES
    parser.add_argument('names', metavar='NAME', nargs='*', help=f'{", ".join(NAMES)}; without a name: print the list')
    parser.add_argument('--root', metavar='DIR', default='data', help='folder of all datasets (data)')
    parser.add_argument(
        '--mirror',
        metavar='URL',
        help='fetch archives from here: https://HOST/FOLDER replaces https://HOST in every address; archives that are '
        'fetched by hand lie directly in it',
    )
    parser.add_argument('--year', choices=YEARS, default=YEARS[0], help='of COCO (2017)')
    parser.add_argument('--size', type=int, default=256, metavar='S', help='pixels of a side of celeba_hq and ffhq (256)')
    parser.add_argument('--splits', metavar='FILE', help='of vg: JSON, split -> ids of its images (a hash of the ids decides)')
    parser.add_argument('--workers', type=int, default=4, metavar='N', help='threads that read and write images (4)')
    parser.add_argument('--force', action='store_true', help='fetch and unpack again, even if files are present')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.need_one_process('vq.tools.prepare_data')
    from vq.assembly import logs
    from vq.data.prepare.sources import find
    from vq.io.download import check_address

    root = Path(options.root).expanduser()
    if not options.names:
        print(table(root, options.size))
        return 0
    if options.size < 1 or options.workers < 1:
        raise UserError('--size and --workers are 1 or more', 'Leave them out for 256 pixels and 4 threads.')
    if options.mirror:
        check_address(options.mirror)
    sources = [find(f'coco-{options.year}' if (name, options.year) == ('coco', '2014') else name) for name in options.names]
    logs.start()
    for source in sources:
        prepare(source, root, options)
    return 0


def prepare(source: Source, root: Path, options: argparse.Namespace) -> None:
    from vq.cli.prepare import Bar
    from vq.data.prepare.archives import prepare_archives
    from vq.data.prepare.sources import find
    from vq.data.prepare.work import Work, alone
    from vq.runners.progress import ProgressBar

    if source.needs:
        prepare(find(source.needs), root, options)
    work = Work(
        root,
        root / source.folder,
        functools.partial(print, flush=True),
        ProgressBar,
        options.size,
        Path(options.splits).expanduser() if options.splits else None,
        options.workers,
    )
    with alone(work.folder):
        prepare_archives(source, work, Bar, options.mirror, options.force)
        if source.name in STEPS:
            module, step = STEPS[source.name]
            getattr(importlib.import_module(module), step)(work)
    print(f'{source.name}: ready in {place_of(source, root, options.size)}')


def place_of(source: Source, root: Path, size: int) -> Path:
    return root / (source.makes.format(size=size) or source.folder)


def table(root: Path, size: int) -> str:
    """Name, state and meaning of each dataset. The state depends on which files exist; no archive is read."""
    from vq.data.prepare.archives import state_of
    from vq.data.prepare.sources import SOURCES

    rows = [('NAME', 'STATE', 'FOLDER', 'WHAT')]
    rows += [(each.name, state_of(each, root, size), str(place_of(each, root, size)), each.about) for each in SOURCES]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return '\n'.join('  '.join((*(t.ljust(w) for t, w in zip(row, widths, strict=False)), row[3])) for row in rows)


if __name__ == '__main__':
    sys.exit(main())
