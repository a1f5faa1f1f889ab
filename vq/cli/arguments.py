"""The arguments that commands share. Imports neither torch nor todd, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from vq.cli.commands import prog_of
from vq.core import run_names
from vq.core.environment import dry_run

__all__ = ['DictAction', 'add_config', 'add_run', 'add_trust', 'add_weights', 'dry_run', 'parse', 'parser']


class DictAction(argparse.Action):
    """todd's ``KEY:EXPR`` (a Python expression) and ``KEY::TEXT`` (literal text); repeated flags add up.

    Todd's own class is not used: importing todd is too slow for ``--help``, and its class forgets earlier flags and fails
    on a pair without a colon.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest, nargs='*', default={}, metavar='KEY:EXPR|KEY::TEXT', **settings)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        pairs = dict(getattr(namespace, self.dest) or {})
        for pair in values:
            key, colon, value = pair.partition(':')
            if not colon or not key.strip():
                parser.error(f"{option_string}: '{pair}' is neither KEY:EXPR nor KEY::TEXT")
            if value.startswith(':'):
                pairs[key.strip()] = value[1:]
                continue
            try:
                pairs[key.strip()] = eval(value, {})
            except Exception as error:
                parser.error(
                    f"{option_string}: '{value}' is not a Python expression ({type(error).__name__}: {error}); "
                    f'for text write {key}::{value}'
                )
        setattr(namespace, self.dest, pairs)


class CommandParser(argparse.ArgumentParser):
    """``door``: the module of the form ``python -m DOOR``."""

    door = ''


def parser(door: str, description: str) -> CommandParser:
    """The parser of a command. Its usage names the command of ``vq``, if there is one, else the module ``door``."""
    prog = prog_of(door)
    found = CommandParser(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.door = door
    return found


def parse(target: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse arguments in any order: ``parse_args`` would not find an optional CONFIG after a flag."""
    return target.parse_intermixed_args(argv)


def add_config(target: argparse.ArgumentParser, optional: str = '') -> None:
    """CONFIG with options and overrides. ``optional``: CONFIG can be left out; the text says what that means."""
    also = f' ({optional})' if optional else ''
    target.add_argument(
        'config',
        metavar='CONFIG',
        nargs='?' if optional else None,
        help=f'a config file, as a path or as its path among the packaged configs; or a run folder{also}',
    )
    target.add_argument(
        '--config-options', action=DictAction, help='options the config files read as _kwargs_, e.g. strategy::ddp'
    )
    target.add_argument(
        '--override',
        action=DictAction,
        help='values of the composed config by path, e.g. .trainer.iters:100 .trainer.callbacks[-1].interval:50',
    )
    add_trust(target)


def add_trust(target: argparse.ArgumentParser) -> None:
    target.add_argument(
        '--trust', action='store_true', help='trust the author of an opened run: import the modules that the run names'
    )


def add_run(target: argparse.ArgumentParser, config_optional: bool = False) -> None:
    """NAME, CONFIG and the options of every run."""
    target.add_argument('name', metavar='NAME', type=run_names.checked, help='name of the run: its folder below work_dirs')
    add_config(target, 'default: that of the run' if config_optional else '')
    target.add_argument('--seed', type=int, default=3407)
    target.add_argument('--autocast', action='store_true', help='forward passes in bf16 (precision=bf16 of the strategy)')
    target.add_argument('--work-dir', default=None, help='folder of all runs (default: work_dirs)')


def add_weights(target: argparse.ArgumentParser, required: bool = False) -> None:
    target.add_argument(
        '--load-model-from',
        nargs='+',
        default=[],
        metavar='F',
        required=required,
        help='weights: files, checkpoint folders or run folders; several are merged, later ones override',
    )
    target.add_argument(
        '--weights',
        choices=('auto', 'model', 'ema'),
        default='auto',
        help='which weights of a checkpoint: auto takes the moving average if there is one',
    )
