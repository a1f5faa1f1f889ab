"""The arguments that commands share. Imports neither torch nor todd, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from vq.cli import foreign, key_values
from vq.cli.commands import COMMANDS, prog_of
from vq.cli.key_values import DictAction
from vq.core import run_names
from vq.core.environment import dry_run
from vq.core.errors import UserError

__all__ = ['DictAction', 'add_config', 'add_run', 'add_trust', 'add_weights', 'dry_run', 'parse', 'parser']


class CommandParser(argparse.ArgumentParser):
    """``door``: the module of the form ``python -m DOOR``."""

    door = ''

    def error(self, message: str) -> NoReturn:
        """Two lines, as other errors of usage; argparse would print the whole usage before them."""
        self.exit(2, f'error: {message}\n{self.prog} --help lists the arguments.\n')


def parser(door: str, description: str) -> CommandParser:
    """The parser of a command. Its usage names the command of ``vq``, if there is one, else the module ``door``."""
    prog = prog_of(door)
    if any(command.door == door for command in COMMANDS.values()):
        ranks = COMMANDS[prog.removeprefix('vq ')].ranks
        description += f'\nAs a module: python -m {door}{f", auto_torchrun -m {door}" if ranks else ""}.'
    found = CommandParser(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.door = door
    return found


def parse(target: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse arguments in any order: ``parse_args`` would not find an optional CONFIG after a flag.

    Words ``key=value`` after CONFIG are options of the config, words ``.path=value`` are overrides.
    """
    words = [*(sys.argv[1:] if argv is None else argv)]
    if (below := chosen(target, words)) is not None:
        return target.parse_args([words[0], *prepared(below, words[1:])])
    if any(isinstance(action, argparse._SubParsersAction) for action in target._actions):
        return target.parse_args(words)  # --help, or a sub-command that does not exist
    options = target.parse_intermixed_args(prepared(target, words))
    check_name(target, options)
    return options


def chosen(target: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser | None:
    """The parser of the sub-command that the first word names."""
    groups = (action for action in target._actions if isinstance(action, argparse._SubParsersAction))
    return next((group.choices[words[0]] for group in groups if words[:1] and words[0] in group.choices), None)


def prepared(target: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The words with a flag before each pair. Flags that the parser does not have are refused."""
    foreign.refuse(target, words)
    takes_pairs = '--config-options' in target._option_string_actions
    return key_values.with_flags(target, words) if takes_pairs else [*words]


def check_name(target: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """A config file in the place of NAME: NAME was forgotten, or the two were swapped."""
    name, config = getattr(options, 'name', None), getattr(options, 'config', None)
    if not isinstance(name, str) or not name.endswith('.py') or (config or '').endswith('.py'):
        return
    called = config or Path(name).stem
    what = 'stand in the wrong order' if config else 'needs a NAME first'
    said = (
        f"'{name}' is a config file: NAME and CONFIG {what}"
        if config
        else f"'{name}' is a config file, and {target.prog} {what}"
    )
    raise UserError(said, f'NAME is the folder of the run below work_dirs. Write: {target.prog} {called} {name}')


def add_config(target: argparse.ArgumentParser, optional: str = '') -> None:
    """CONFIG with options and overrides. ``optional``: CONFIG can be left out; the text says what that means."""
    also = f' ({optional})' if optional else ''
    target.add_argument(
        'config',
        metavar='CONFIG',
        nargs='?' if optional else None,
        help=f'a config file, as a path or as its path among the packaged configs; or a run folder{also}',
    )
    add_pairs(target)


def add_pairs(target: argparse.ArgumentParser) -> None:
    """What changes a config: options, overrides, trust."""
    target.add_argument(
        '--config-options',
        action=DictAction,
        help='options of the config; the flag may be left out: strategy=ddp (text after ::, a Python expression after :)',
    )
    target.add_argument(
        '--override',
        action=DictAction,
        help="values of the composed config by path, quoted; the flag may be left out: '.trainer.callbacks[-1].interval=50'",
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
    target.add_argument('--seed', type=int, default=3407, help='seed of all randomness (default: 3407)')
    target.add_argument('--autocast', action='store_true', help='forward passes in bf16 (precision=bf16 of the strategy)')
    target.add_argument('--work-dir', default=None, help='folder of all runs (default: work_dirs)')


def add_weights(target: argparse.ArgumentParser, required: bool = False, own: bool = False) -> None:
    """``--load-model-from`` and ``--weights``. ``own``: the weights of the run NAME are the default; see ``own_weights``."""
    target.add_argument(
        '--load-model-from',
        nargs='+',
        default=[],
        metavar='F',
        required=required,
        help='weights: runs, checkpoint folders or files; several are merged, later ones override'
        + (' (default: the newest checkpoint of NAME)' if own else ''),
    )
    target.add_argument(
        '--weights',
        choices=('auto', 'model', 'ema'),
        default='auto',
        help='which weights of a checkpoint: auto takes the moving average if there is one',
    )
