"""List runs, and delete checkpoints that are not needed any more: ``vq runs [PATTERN] [--prune --keep last]``."""

from __future__ import annotations

import argparse
import fnmatch
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vq.cli import arguments
from vq.cli.errors import command, say
from vq.core import environment
from vq.core.errors import UserError, nearest

if TYPE_CHECKING:
    from vq.io.pruning import Plan
    from vq.io.run_list import RunSummary

ONLY_PRINTS = True

EXAMPLES = """
examples:
  vq runs                                        all runs, the last changed first
  vq runs 'digits*' --sort psnr                   the best first
  vq runs --json                                 for other programs
  vq runs 'digits*' --prune --keep every:40000    what would be deleted, and how many bytes
  vq runs 'digits*' --prune --keep last best --yes

--prune never deletes the latest checkpoint, anything of a run that trains, or a checkpoint that another run was trained on.
"""
SORTS = ('change', 'name', 'size', 'step', 'state', 'kind')


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser('vq.runs', 'The runs below work_dirs: kind, state, steps, best figure, size, last change.')
    parser.epilog = EXAMPLES
    parser.add_argument('pattern', nargs='?', default=None, metavar='PATTERN', help="names of runs, such as 'digits*'")
    parser.add_argument('--sort', default='change', metavar='BY', help=f'{", ".join(SORTS)}, or the name of a figure (change)')
    parser.add_argument('--json', action='store_true', help='JSON, with all figures')
    parser.add_argument('--all', action='store_true', help='dry runs too, as with DRY_RUN')
    parser.add_argument('--work-dir', default=None, help='folder of all runs (default: work_dirs)')
    parser.add_argument(
        '--prune', action='store_true', help='show which checkpoints --keep leaves over; with --yes, delete them'
    )
    parser.add_argument(
        '--keep', action='extend', nargs='+', default=[], metavar='WHICH', help='last, last:N, best, best:FIGURE, every:N'
    )
    parser.add_argument('--yes', action='store_true', help='delete')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.need_one_process('vq runs')
    if (options.yes and not options.prune) or (options.keep and not options.prune):
        raise UserError(f'{"--yes" if options.yes else "--keep"} belongs to --prune', 'Add --prune, or leave it out.')
    from vq.io.run_list import list_runs

    root = Path(options.work_dir or 'work_dirs')
    if not root.is_dir():
        raise UserError(f'there is no folder {root}', 'Run from the folder that holds work_dirs, or name it: --work-dir.')
    found = list_runs(root, options.all or environment.dry_run())
    chosen = [run for run in found if matches(run.name, options.pattern)]
    if options.pattern is not None and not chosen:
        known = [run.name for run in found]
        raise UserError(
            f"no run in {root} is called '{options.pattern}'{nearest(options.pattern, known)}", 'List all: vq runs'
        )
    ordered = sort(chosen, options.sort)
    if options.prune:
        return prune(ordered, root, options)
    if options.json:
        from vq.io.run_list import as_text

        print(as_text(ordered))
    else:
        print_table(ordered, root)
    return 0


def matches(name: str, pattern: str | None) -> bool:
    """Whether a glob matches the name, or a word without wildcards is the name or a folder above it. Dry runs need not be
    called ``dry_run/NAME``."""
    names = {name, name.removeprefix('dry_run/')}
    if pattern is None or any(fnmatch.fnmatchcase(known, pattern) for known in names):
        return True
    return any(known.startswith(f'{pattern.rstrip("/")}/') for known in names)


def sort(runs: Sequence[RunSummary], by: str) -> list[RunSummary]:
    """By a column; by a figure the best first, runs without it last."""
    from vq.io.run_list import LOWER

    if by in ('name', 'state', 'kind'):
        return sorted(runs, key=lambda run: (getattr(run, by), run.name))
    if by == 'change':
        return sorted(runs, key=lambda run: (-run.changed, run.name))
    if by in ('size', 'step'):
        return sorted(runs, key=lambda run: (-(getattr(run, by) or 0), run.name))
    names = {name for run in runs for name in run.best}
    if by not in names:
        known = [*SORTS, *sorted(names)]
        raise UserError(
            f"--sort '{by}' is no column and no figure of these runs{nearest(by, known)}", f'There are: {", ".join(known)}.'
        )
    sign = 1 if LOWER.fullmatch(by) else -1
    return sorted(runs, key=lambda run: (by not in run.best, sign * run.best[by].value if by in run.best else 0, run.name))


def print_table(runs: Sequence[RunSummary], root: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    if not runs:
        print(f'{root} has no runs. Start one: vq train NAME CONFIG')
        return
    table = Table(show_edge=False, pad_edge=False)
    for name, justify in (('run', 'left'), ('kind', 'left'), ('state', 'left'), ('step', 'right'), ('best', 'left'),
                          ('size', 'right'), ('changed', 'left'), ('config', 'left')):  # fmt: skip
        table.add_column(name, justify=justify, overflow='fold')  # type: ignore[arg-type]
    for run in runs:
        table.add_row(
            run.name, run.kind, run.state, steps_of(run), best_of(run), size_in_words(run.size), when(run.changed), run.config
        )
    console = Console()
    width = console.width if console.is_terminal else 200  # in a file or a pipe no line is folded
    Console(width=max(80, width)).print(table)
    total = sum(run.size for run in runs)
    print(f'{len(runs)} runs, {size_in_words(total)}')


def steps_of(run: RunSummary) -> str:
    if run.step is None:
        return '-'
    return f'{run.step}/{run.iters}' if run.iters is not None else str(run.step)


def best_of(run: RunSummary) -> str:
    if run.shown is None:
        return '-'
    name, best = run.shown
    return f'{name} {best.value:.4g} at {best.step}'


def when(changed: float) -> str:
    return time.strftime('%Y-%m-%d %H:%M', time.localtime(changed))


def size_in_words(size: float) -> str:
    for unit in ('B', 'kB', 'MB', 'GB'):
        if size < 1000:
            return f'{size:.0f} {unit}' if unit == 'B' or size >= 100 else f'{size:.1f} {unit}'
        size /= 1000
    return f'{size:.1f} TB'


def prune(runs: Sequence[RunSummary], root: Path, options: argparse.Namespace) -> int:
    from vq.io.pruning import Needed, parse_keep, plan

    keep = parse_keep(options.keep)
    if options.yes and options.pattern is None:
        raise UserError(
            '--prune --yes would delete checkpoints of all runs', "Name the runs: vq runs PATTERN --prune; '*' is all."
        )
    needed = Needed(root)
    plans = [plan(run, keep, needed) for run in sorted(runs, key=lambda run: run.name)]
    for planned in plans:
        tell(planned, options.yes)
    count, size = sum(len(planned.gone) for planned in plans), sum(planned.size for planned in plans)
    if not options.yes:
        print(f'{count} checkpoints would be deleted, {size_in_words(size)}. Nothing was deleted: that takes --yes.')
        return 0
    return carry_out(plans)


def tell(planned: Plan, now: bool) -> None:
    name = planned.run.name
    if planned.skipped:
        print(f'{name}: left alone, {planned.skipped}')
        return
    print(f'{name}: {len(planned.gone)} of {len(planned.gone) + len(planned.kept)} checkpoints, {size_in_words(planned.size)}')
    for path, size in planned.gone:
        print(f'  {"delete" if now else "would delete"}  {path.name}  {size_in_words(size)}')
    for checkpoint, why in sorted(planned.kept.items(), key=lambda item: int(item[0].rpartition('_')[2])):
        print(f'  keep  {checkpoint}  ({why})')


def carry_out(plans: Sequence[Plan]) -> int:
    """Delete, run by run. A run that cannot be pruned costs the exit code, and the others are done."""
    from vq.io.pruning import delete

    count, size, failed = 0, 0, 0
    for planned in plans:
        if not planned.gone:
            continue
        try:
            done = delete(planned)
        except UserError as error:
            say(error.message, error.hint)
            failed += 1
            continue
        except OSError as error:
            say(f'{planned.run.folder}: {error}', 'See the permissions of the folder, and the disk it is on.')
            failed += 1
            continue
        count, size = count + len(done), size + sum(bytes_ for _, bytes_ in done)
    print(f'{count} checkpoints were deleted, {size_in_words(size)} are free.')
    return 1 if failed else 0
