"""The arguments commands share. Nothing here imports torch or todd: ``--help`` answers at once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any


class DictAction(argparse.Action):
    """todd's ``KEY:EXPR`` (a Python expression) and ``KEY::TEXT`` (text as it stands); repeated flags add up.

    Not todd's own class: importing todd takes longer than all of ``--help`` may, and its class forgets earlier flags
    and fails on a pair without a colon.
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
                    f"{option_string}: '{value}' is no Python expression ({type(error).__name__}: {error}); "
                    f'for text write {key}::{value}'
                )
        setattr(namespace, self.dest, pairs)


def parser(command: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=command, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_config(target: argparse.ArgumentParser, required: bool = True) -> None:
    """CONFIG with options and overrides."""
    target.add_argument(
        'config',
        metavar='CONFIG',
        nargs=None if required else '?',
        help='a config file, as a path or as its path among the packaged configs',
    )
    target.add_argument(
        '--config-options', action=DictAction, help='options the config files read as _kwargs_, e.g. strategy::ddp'
    )
    target.add_argument(
        '--override',
        action=DictAction,
        help='values of the composed config by path, e.g. .trainer.iters:100 .trainer.callbacks[-1].interval:50',
    )


def add_run(target: argparse.ArgumentParser) -> None:
    """NAME, CONFIG and what every run takes."""
    target.add_argument('name', metavar='NAME', help='name of the run: its folder below work_dirs')
    add_config(target)
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
        help='weights: files, checkpoint folders or run folders; several are merged, later ones win',
    )
    target.add_argument(
        '--weights',
        choices=('auto', 'model', 'ema'),
        default='auto',
        help='which weights of a checkpoint: auto takes the moving average where there is one',
    )


def dry_run() -> bool:
    """DRY_RUN=True in the environment: every command runs its config's tiny form."""
    return os.environ.get('DRY_RUN', '').lower() in ('1', 'true', 'yes')
