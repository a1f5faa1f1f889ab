"""A page about a run: ``vq report NAME``."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vq.cli import arguments
from vq.cli.errors import command
from vq.cli.next_steps import DRY, generator_line, name_of, say_next
from vq.core import environment
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.io.runs import Run
    from vq.report.opening import Asked

logger = logging.getLogger('vq')

EXAMPLES = """
examples:
  vq report digits                              work_dirs/digits/report.html
  vq report digits digits_ar --images 40        a page for each
  vq report digits_ar --classifier digits_ic    figures in the features of a classifier
  vq report work_dirs/digits/checkpoints/iter_350 --output half.html

The page is one file, with curves, pictures, codes, figures, cost, config and commands. The run is only read, also while it
trains. What the run or its data do not have is left out, and the page says so.
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser('vq.report', 'A page about each run: pictures, curves, figures, cost, config, commands.')
    parser.epilog = EXAMPLES
    parser.add_argument(
        'names', nargs='+', metavar='NAME', help='a run, a checkpoint folder, a converted file, or a published tokenizer'
    )
    parser.add_argument(
        '--output', default=None, metavar='FILE', help='the page (default: report.html in the folder of the run)'
    )
    parser.add_argument('--images', type=int, default=24, metavar='N', help='images to show, at most (24)')
    parser.add_argument(
        '--weights',
        choices=('auto', 'model', 'ema'),
        default='auto',
        help='which weights of a checkpoint: auto takes the moving average if there is one',
    )
    parser.add_argument(
        '--classifier', default=None, metavar='NAME', help='a run of a classifier: Frechet distances in its features'
    )
    parser.add_argument('--device', default='auto', help='cpu, cuda, ...; auto: a GPU if there is one')
    parser.add_argument('--seed', type=int, default=3407, help='of k-means and of new images')
    parser.add_argument('--work-dir', default=None, help='folder of all runs (default: work_dirs)')
    parser.add_argument('--open', action='store_true', help='open the page in a browser')
    arguments.add_trust(parser)
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.need_one_process('vq report')
    if options.images < 1:
        raise UserError(f'--images is {options.images}', 'Give 1 or more.')
    names = list(dict.fromkeys(options.names))
    if options.output is not None and len(names) > 1:
        raise UserError(f'--output names one file, and there are {len(names)} runs', 'Leave it out, or report one run.')
    environment.prepare()
    from vq.assembly import logs
    from vq.report.of_run import place_of, report

    logs.start()
    asked = read_options(options, options.classifier)
    last = None
    for name in names:
        found = report(name, asked)
        path = Path(options.output) if options.output is not None else place_of(found.run)
        if path is None:
            raise UserError(f'{name} is a file, and has no folder for its report', 'Say where: --output report.html')
        found.page.save(path)
        print(f'{found.sentence}\n{path}\n{path.resolve().as_uri()}', flush=True)
        if options.open:
            import webbrowser

            webbrowser.open(path.resolve().as_uri())
        last = found
    assert last is not None
    say_next(*next_lines(last.run, options.work_dir))
    return 0


def read_options(options: argparse.Namespace, classifier: str | None) -> Asked:
    """What the commands of pages ask of a report."""
    import torch

    from vq.io.runs import RUNS
    from vq.report.opening import Asked

    device = options.device
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return Asked(
        images=options.images,
        weights=options.weights,
        device=device,
        classifier=classifier,
        trust=options.trust,
        work_dir=options.work_dir or RUNS,
        seed=options.seed,
    )


def next_lines(run: Run, work_dir: str | None) -> list[str]:
    """What usually follows a report: a generator after a tokenizer, samples after a generator, else figures."""
    name = name_of(run, work_dir)
    if name is None:
        return []
    place, base = ['--work-dir', work_dir] if work_dir else [], Path(work_dir or 'work_dirs')
    line = shlex.join(['vq', 'sample' if run.spec.kind == 'generator' else 'val', name, *place])
    lines = [generator_line(run, str(base / name) if work_dir else name, base, place) or line]
    return [*lines, DRY] if environment.dry_run() else lines
