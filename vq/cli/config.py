"""Print and check a config: ``python -m vq.config CONFIG``. Counts its parameters on the meta device."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vq.cli import arguments
from vq.cli.errors import command
from vq.core import environment

ONLY_PRINTS = True

EXAMPLES = """
examples:
  vq config --list digits                                  the shipped configs with this word
  vq config digits/vq_ema.py --options                     what can be set as KEY=VALUE
  vq config digits/vq_ema.py codebook_size=128             the composed config, checked and counted
  vq config digits/vq_ema.py --diff digits/vq_rotation.py
  vq config digits/vq_ema.py --copy mine.py                a config of your own that starts from this one
  vq config digits/vq_ema.py --memory --devices 1 8
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser('vq.config', 'Print a composed config, check it, count its parameters and operations.')
    parser.epilog = EXAMPLES
    arguments.add_config(parser, optional='not needed with --list')
    parser.add_argument('--options', action='store_true', help='list the options instead: type, default, value, meaning')
    parser.add_argument('--schema', action='store_true', help='print a JSON schema of the options instead')
    parser.add_argument('--list', nargs='?', const='', metavar='WORD', help='list the shipped configs (that contain WORD)')
    parser.add_argument('--copy', type=Path, metavar='FILE', help='write a config of your own that starts from CONFIG')
    parser.add_argument('--diff', metavar='OTHER', help='print only what differs from another config')
    parser.add_argument('--no-check', action='store_true', help='print without building anything')
    memory = parser.add_argument_group('memory')
    memory.add_argument('--memory', action='store_true', help='print the memory of one device in training instead, in MiB')
    memory.add_argument(
        '--devices', type=_count, nargs='+', default=[1, 8, 64], metavar='N', help='numbers of devices (1 8 64)'
    )
    memory.add_argument('--batch', type=_count, metavar='N', help="images per device, in place of the config's batch")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 up")
    return int(text)


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    options = arguments.parse(parser, argv)
    if options.list is not None or options.options or options.schema or options.copy:
        return look(parser, options)
    if options.config is None:
        parser.error('CONFIG is missing; --list names the shipped ones')
    environment.prepare()
    from vq.assembly.compose import compose, find_config
    from vq.core.composed import is_data
    from vq.core.config import resolve_config

    started = time.perf_counter()
    config = compose(options.config, options.config_options, options.override, trusted=options.trust)
    seconds = time.perf_counter() - started
    if options.diff:
        settled = is_data(resolve_config(find_config(options.diff)))  # the composed config of a run has no options
        other = compose(options.diff, {} if settled else options.config_options, {}, trusted=options.trust)
        print(other.diff(config) or 'the two configs are equal')
        return 0
    if options.memory:
        from vq.assembly.memory import table

        print(table(config, options.devices, options.batch))
        return 0
    print(config.dumps(), end='')
    if not options.no_check:
        report(config, seconds)
    return 0


def look(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """The list of configs, and the options of one: without torch, and without building a part."""
    from vq.cli import options as looks

    if options.list is not None:
        looks.print_list(options.list)
        return 0
    if options.config is None:
        parser.error('CONFIG is missing; --list names the shipped ones')
    record = looks.recorded(options.config, options.config_options)
    if options.copy is not None:
        looks.copy(options.config, options.copy, record)
    elif options.schema:
        print(json.dumps(looks.schema(record), indent=2))
    else:
        looks.print_options(record)
    return 0


def report(config: Any, seconds: float) -> None:
    """Check every runner of the config, count its model on the meta device, and say which pretrained files are missing."""
    from rich.console import Console
    from rich.table import Table

    from vq.assembly.compose import checked
    from vq.assembly.counting import count_model, meta_model
    from vq.assembly.needed_files import missing_lines, needed_files
    from vq.core.environment import dry_run

    runners = [which for which in ('trainer', 'validator') if which in config]
    judged = {which: checked(config, which) for which in runners}
    print(f'\n# composed in {1000 * seconds:.0f} ms; checked: {", ".join(runners)}')
    if not runners or 'model' not in judged[runners[0]]:
        return
    model = meta_model(judged[runners[0]])
    counts = count_model(judged[runners[0]], model)
    table = Table(show_edge=False, title=None)
    for column in ('part', 'parameters', 'forward GFLOPs per image'):
        table.add_column(column, justify='left' if column == 'part' else 'right')
    for name, (parameters, flops) in counts.items():
        table.add_row(name, f'{parameters:,}', '-' if flops is None else f'{flops / 1e9:.4f}')
    Console().print(table)
    for line in [] if dry_run() else missing_lines(needed_files(judged, model)):
        print(f'# {line}')
