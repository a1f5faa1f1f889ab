"""Runs or results side by side: ``vq compare A B ...``; only comparable figures are ranked."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vq.cli import arguments
from vq.cli.errors import command
from vq.core import environment
from vq.core.errors import UserError
from vq.io.comparable import Tables, best, compare, labels_of, read

ONLY_PRINTS = True

EXAMPLES = """
examples:
  vq compare digits digits_ar                    runs: a page with configs, curves, figures and pictures side by side
  vq compare work_dirs/digits work_dirs/digits_ar --images 8
  vq compare work_dirs/digits/val/iter_700/results.json work_dirs/digits_test/results.json     tables of results, here
"""
WEIGHTS = ('.safetensors', '.pth', '.pt', '.ckpt', '.bin')
MOST = 20  # differences of configs that are printed; the page has all


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.tools.compare',
        'Runs, or results of val, test, fid and pairs, side by side. The best of comparable figures is marked *;\n'
        'figures of other references, counts, networks, preprocessing or data get tables of their own, with the reason.',
    )
    parser.epilog = EXAMPLES
    parser.add_argument(
        'files', nargs='+', metavar='RUN|FILE', help='runs: names or folders; or results.json, fid.json, pairs.json'
    )
    parser.add_argument('--output', default=None, metavar='FILE', help='the page of runs (default: in work_dirs/compare)')
    parser.add_argument('--images', type=int, default=16, metavar='N', help='images side by side, at most (16)')
    parser.add_argument(
        '--weights',
        choices=('auto', 'model', 'ema'),
        default='auto',
        help='which weights of a checkpoint: auto takes the moving average if there is one',
    )
    parser.add_argument('--device', default='auto', help='cpu, cuda, ...; auto: a GPU if there is one')
    parser.add_argument('--seed', type=int, default=3407, help='of new images')
    parser.add_argument('--work-dir', default=None, help='folder of all runs (default: work_dirs)')
    arguments.add_trust(parser)
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    names = list(dict.fromkeys(options.files))
    files = [name for name in names if is_results(name)]
    runs = [name for name in names if name not in files]
    records = {file: read(Path(file)) for file in files}
    if not runs:
        print_tables({label: records[file] for file, label in labels_of(records).items()})
        return 0
    if len(names) < 2:
        raise UserError(f'{runs[0]} is alone, with nothing to compare it with', f'Name another: vq compare {runs[0]} OTHER')
    if options.images < 1:
        raise UserError(f'--images is {options.images}', 'Give 1 or more.')
    return compare_runs(runs, records, options)


def is_results(name: str) -> bool:
    """Whether a word names a file of results, not a run or a file of weights."""
    return name.endswith('.json') or (Path(name).is_file() and Path(name).suffix not in WEIGHTS)


def compare_runs(names: Sequence[str], records: Mapping[str, Any], options: argparse.Namespace) -> int:
    environment.need_one_process('vq compare')
    environment.prepare()
    from vq.assembly import logs
    from vq.cli.report import read_options
    from vq.report.comparison_page import build_page, differences
    from vq.report.of_runs import gather

    logs.start()
    found = gather(names, read_options(options, classifier=None), records)
    path = Path(options.output) if options.output is not None else place_of(list(found.runs), options.work_dir)
    build_page(found).save(path)
    rows = differences({name: one.run.config for name, one in found.runs.items()})
    print_differences(rows, list(found.runs))
    print_tables(found.records)
    for reason in found.left_out:
        print(f'left out: {reason}')
    print(f'{path}\n{path.resolve().as_uri()}', flush=True)
    return 0


def place_of(names: Sequence[str], work_dir: str | None) -> Path:
    """``work_dirs/compare/A_vs_B.html``."""
    words = [re.sub(r'[^\w.-]+', '_', name).strip('_')[:60] for name in names]
    return Path(work_dir or 'work_dirs') / 'compare' / f'{"_vs_".join(words)[:200]}.html'


def print_differences(rows: Sequence[tuple[str, Sequence[str]]], labels: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # brackets in a path are no markup

    if not rows:
        print('The configs are equal.\n')
        return
    table = Table(show_edge=False)
    for name in ('config', *labels):
        table.add_column(name, overflow='fold')
    for path, values in rows[:MOST]:
        table.add_row(Text(path), *(Text(value if len(value) <= 60 else f'{value[:57]}...') for value in values))
    Console(width=max(80, 40 + 30 * len(labels))).print(table)
    if len(rows) > MOST:
        print(f'... and {len(rows) - MOST} more differences, on the page')
    print()


def print_tables(records: Mapping[str, Mapping[str, Any]]) -> None:
    for title, tables, reasons in compare(records):
        print_family(title, tables, reasons)


def print_family(title: str, tables: Tables, reasons: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    for number, group in enumerate(tables):
        heading = title if len(tables) == 1 else f'{title}, group {number + 1} of {len(tables)}'
        table = Table(show_edge=False)
        table.add_column('')
        for label in group:
            table.add_column(label, justify='right', overflow='fold')
        for name in dict.fromkeys(name for figures in group.values() for name in figures):
            values = {label: figures.get(name) for label, figures in group.items()}
            marked = best(name, values)
            table.add_row(name, *(show(value) + ('*' if label in marked else ' ') for label, value in values.items()))
        width = 30 + sum(max(14, len(label) + 3) for label in group)
        print(heading)
        Console(width=max(80, width)).print(table)
        print()
    for reason in reasons:
        print(f'{title}: {reason}', flush=True)


def show(value: Any) -> str:
    if value is None:
        return '-'
    return f'{value:.5g}' if isinstance(value, float) else str(value)


if __name__ == '__main__':
    sys.exit(main())
