"""Check this machine: ``vq doctor``. A table of findings; the exit code is 1 if something that training needs fails."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence

from vq.cli import arguments
from vq.cli.errors import command
from vq.core import environment

ONLY_PRINTS = True

EXAMPLES = """
examples:
  vq doctor
  vq doctor --json
  vq doctor --work-dir /data/runs --no-step
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.doctor',
        'Check Python, torch, devices, memory, disk, packages and weights, and train a tiny model for three steps on each\n'
        'device. Exit code 1 if something fails that training needs.',
    )
    parser.epilog = EXAMPLES
    parser.add_argument('--json', action='store_true', help='print the findings as JSON instead')
    parser.add_argument('--no-step', action='store_true', help='train nothing')
    parser.add_argument('--work-dir', default=None, help='folder of all runs (default: work_dirs)')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.need_one_process('vq doctor')
    environment.prepare()
    from vq.cli import doctor_checks as checks

    found = checks.examine(options.work_dir, steps=not options.no_step)
    failed = any(finding.state == 'fail' for finding in found)
    if options.json:
        print(json.dumps({'ok': not failed, 'findings': [dataclasses.asdict(finding) for finding in found]}, indent=2))
    else:
        print_findings(found)
    return int(failed)


def print_findings(found: Sequence[object]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vq.cli.doctor_checks import Finding

    table = Table(show_edge=False, box=None, pad_edge=False)
    for column in ('', 'what', 'found'):
        table.add_column(column, overflow='fold')
    colours = {'ok': 'green', 'warn': 'yellow', 'fail': 'bold red'}
    for finding in found:
        assert isinstance(finding, Finding)
        told = finding.text + (f'\n{finding.hint}' if finding.hint else '')
        table.add_row(Text(finding.state, style=colours[finding.state]), Text(finding.name), Text(told))
    Console().print(table)
