"""The tables of docs/commands.md, from the parsers of the commands: ``python -m tests.command_tables`` writes them."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from vq.cli.commands import COMMANDS
from vq.launch import main as launcher

PAGE = Path(__file__).parent.parent / 'docs' / 'commands.md'
BEGIN, END = '<!-- written by tests/command_tables.py -->', '<!-- end of what tests/command_tables.py writes -->'


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """(name, parser) of each command and of commands below it (``data check``), of those that are here."""
    for name, command in COMMANDS.items():
        if importlib.util.find_spec(command.body) is not None:
            yield from _with_subcommands(name, importlib.import_module(command.body).make_parser())


def _with_subcommands(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub, below in action.choices.items():
                yield from _with_subcommands(f'{name} {sub}', below)


def flags_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings and action.dest != 'help']


def tables() -> str:
    rows = ['| command | does | as a module |', '|---|---|---|']
    for name, command in COMMANDS.items():
        launch = 'auto_torchrun' if command.ranks else 'python'
        rows.append(f'| `vq {name}` | {command.about} | {f"`{launch} -m {command.door}`" if command.door else ""} |')
    parts = ['\n'.join(rows), '### Options of the launcher, before the command', _table(_launcher_rows())]
    for name, parser in parsers():
        words = [
            _place(action) for action in parser._actions if not action.option_strings and action.help != argparse.SUPPRESS
        ]
        parts.append(f'### `vq {" ".join([name, *filter(None, words)])}`')
        if flags_of(parser):
            parts.append(_table([(_written(action), _text(action)) for action in flags_of(parser)]))
    return '\n\n'.join(parts)


def _launcher_rows() -> list[tuple[str, str]]:
    rows = [(f'--{name} {metavar}', meaning) for name, (metavar, _, meaning) in launcher.OPTIONS.items()]
    return [('--dry', 'print the commands to start here, one line per process, and exit'), *rows]


def _table(rows: list[tuple[str, str]]) -> str:
    return '\n'.join(['| flag | meaning |', '|---|---|', *(f'| `{flag}` | {text} |' for flag, text in rows)])


def _place(action: argparse.Action) -> str:
    """A positional argument as in a usage line."""
    if isinstance(action, argparse._SubParsersAction):
        return '{' + ','.join(action.choices) + '}'
    name = str(action.metavar or action.dest.upper())
    return {'?': f'[{name}]', '*': f'[{name} ...]', '+': f'{name} ...'}.get(str(action.nargs), name)


def _written(action: argparse.Action) -> str:
    """``--weights auto,model,ema``: choices in place of a metavar."""
    flag = action.option_strings[-1]
    if action.nargs == 0:
        return flag
    name = ','.join(map(str, action.choices)) if action.choices else str(action.metavar or action.dest.upper())
    return f'{flag} {name}{" ..." if action.nargs in ("+", "*") else ""}'


def _text(action: argparse.Action) -> str:
    text = re.sub(r'\s+', ' ', (action.help or '').replace('|', '\\|')) % {'default': action.default, 'prog': 'vq'}
    shown = action.default not in (None, False, [], {}, argparse.SUPPRESS) and 'default' not in text
    return f'{text}{" " if text else ""}(default: {action.default})' if shown else text


def written(page: str) -> str:
    """The page with the tables of these parsers."""
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f'{before}{BEGIN}\n\n{tables()}\n\n{END}{after}'


if __name__ == '__main__':
    PAGE.write_text(written(PAGE.read_text(encoding='utf-8')), encoding='utf-8')
