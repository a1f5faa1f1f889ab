"""What a shell can offer for the last word of ``vq ...``. Reads only names of files and sources; executes no config.

The scripts of ``vq completion`` call ``vq __complete WORD ...`` with the words after ``vq``, the last one being typed. It
prints a candidate on each line, with a tab and its meaning if there is one. A line ``:files`` or ``:dirs`` says that paths of
the shell fit too. A candidate that ends with ``=`` or ``/`` is not finished.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vq.cli import static_options
from vq.cli.commands import COMMANDS
from vq.cli.key_values import is_pair, words_of
from vq.core.environment import usable_gpus
from vq.launch import main as launcher

FILES, DIRS = ':files', ':dirs'
SHELLS = ('bash', 'zsh', 'fish')
SHARED = ('datasets', 'strategies', 'models', 'runners')  # folders of fragments
DEEPEST = 4  # parts of the name of a run

Candidate = tuple[str, str]  # word, meaning


def complete(words: Sequence[str]) -> list[str]:
    """The lines to print."""
    typed = words[-1] if words else ''
    found: dict[str, str] = {}
    for word, meaning in candidates([*words[:-1]], typed):
        if word in (FILES, DIRS) or word.startswith(typed):
            found.setdefault(word, meaning)
    return [f'{word}\t{meaning}' if meaning else word for word, meaning in found.items()]


def candidates(before: list[str], typed: str) -> Iterator[Candidate]:
    position = 0
    while position < len(before) and before[position].startswith('-'):  # options of the launcher
        takes = '=' not in before[position] and before[position][2:].replace('_', '-') in launcher.OPTIONS
        if takes and position + 1 == len(before):
            return  # a number or an address
        position += 1 + takes
    if position >= len(before):
        yield from ((name, command.about) for name, command in COMMANDS.items())
        if typed.startswith('-'):
            yield from ((f'--{name}', meaning) for name, (_, _, meaning) in launcher.OPTIONS.items())
            yield from (('--dry', 'print the commands to start'), ('--version', ''), ('--help', ''))
        return
    name, arguments = before[position], before[position + 1 :]
    if name in COMMANDS:
        yield from of_command(name, importlib.import_module(COMMANDS[name].body).make_parser(), arguments, typed)


def of_command(name: str, parser: argparse.ArgumentParser, arguments: list[str], typed: str) -> Iterator[Candidate]:
    flag, left, positional, values = read(parser, arguments)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and positional and positional[0] in action.choices:
            rest = [*arguments]
            rest.remove(positional[0])
            yield from of_command(name, action.choices[positional[0]], rest, typed)
            return
    if typed.startswith('-'):
        for action in parser._actions:
            yield from ((text, action.help or '') for text in action.option_strings if text.startswith('--'))
        return
    if flag is not None and left:
        yield from of_action(flag, name, positional, values, typed)
        if left < float('inf') and flag.nargs != '?':
            return
    takers = [action for action in parser._actions if not action.option_strings]
    if '--config-options' in parser._option_string_actions and positional and (flag is None or not left):
        yield from pairs(config_of(takers, positional, values), typed, values)
    place = min(len(positional), len(takers) - 1)
    if takers and not (flag is not None and left) and (len(positional) < len(takers) or takers[-1].nargs in ('+', '*')):
        yield from of_action(takers[place], name, positional, values, typed)


def read(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> tuple[argparse.Action | None, float, list[str], dict[str, list[str]]]:
    """The last flag and how many words it still takes; positional words without pairs; the words of each flag."""
    flags = parser._option_string_actions
    flag, left, positional, values = None, 0.0, [], {}  # type: ignore[var-annotated]
    for word in words:
        if word.startswith('-') and len(word) > 1:
            name, sign, value = word.partition('=')
            flag = flags.get(name)
            left = 0.0 if flag is None or sign else words_of(flag)
            if flag is not None:
                values.setdefault(flag.dest, []).extend([value] if sign else [])
        elif left and flag is not None:
            values.setdefault(flag.dest, []).append(word)
            left -= 1
        elif not (positional and is_pair(word)):
            positional.append(word)
    return flag, left, positional, values


def config_of(takers: Sequence[argparse.Action], positional: Sequence[str], values: dict[str, list[str]]) -> str:
    """The CONFIG among the words; DATASET of ``vq fid`` is one too."""
    for action, word in zip(takers, positional, strict=False):
        if action.dest == 'config':
            return word
        if action.dest == 'dataset':
            return f'datasets/{word}.py'
    return ''


def of_action(
    action: argparse.Action, command: str, positional: Sequence[str], values: dict[str, list[str]], typed: str
) -> Iterator[Candidate]:
    """Words for a flag's value, or for a positional argument."""
    base = Path((values.get('work_dir') or ['work_dirs'])[-1])
    if action.choices is not None:
        yield from ((str(choice), '') for choice in action.choices)
    elif action.dest in ('name', 'run', 'load_model_from', 'names', 'runs') and command != 'fetch':
        yield from ((name, 'a run') for name in run_names(base))
        if action.dest != 'name':
            yield FILES, ''
    elif action.dest == 'names':
        from vq.io.published.catalog import CATALOG

        yield from ((entry.name, entry.about) for entry in CATALOG)
    elif action.dest == 'load_from':
        yield from ((name, 'a checkpoint') for name in checkpoints(base, positional))
    elif action.dest in ('config', 'diff'):
        yield from configs(typed)
    elif action.dest in ('work_dir', 'root'):
        yield DIRS, ''
    elif action.dest in ('config_options', 'override'):
        yield from pairs(next((word for word in positional if word.endswith('.py')), ''), typed, values)
    elif action.dest == 'device':
        yield from ((device, '') for device in ('auto', 'cpu', *(f'cuda:{index}' for index in range(usable_gpus()))))
    elif action.dest == 'dataset':
        yield from ((path.stem, 'a dataset') for path in sorted((static_options.packaged() / 'datasets').glob('*.py')))
    elif action.dest in ('figures',):
        return
    elif action.type is None and action.dest not in ('temperature', 'list', 'sweep', 'classes', 'mirror'):
        yield FILES, ''


def pairs(config: str, typed: str, values: dict[str, list[str]]) -> Iterator[Candidate]:
    """``key=`` for the options of CONFIG; after the sign the values of the option, or runs and folders."""
    known = static_options.options_of(config) if config else {}
    key, sign, value = typed.partition('=')
    if not sign:
        yield from ((f'{name}=', option.meaning) for name, option in sorted(known.items()))
        return
    option = known.get(key)
    if option is not None:
        yield from ((f'{key}={text}', '') for text in option.values)
    if option is not None and (key.endswith('_run') or key == 'tokenizer'):
        base = Path((values.get('work_dir') or ['work_dirs'])[-1])
        yield from ((f'{key}={name}', 'a run') for name in run_names(base))
    elif option is not None and key == 'strategy':
        yield from (
            (f'{key}={path.stem}', '')
            for path in sorted((static_options.packaged() / 'strategies').glob('*.py'))
            if path.stem != 'interface'
        )
    elif option is not None and not option.values and ('root' in key or 'dir' in key or key in ('data', 'root')):
        yield from ((f'{key}={folder}/', '') for folder in folders(value))


def configs(typed: str) -> Iterator[Candidate]:
    """Shipped configs as FOLDER/NAME.py, and Python files and folders of the shell."""
    root = static_options.packaged()
    prefix = 'configs/' if typed.startswith('configs/') else ''
    for path in sorted(root.rglob('*.py')):
        name = path.relative_to(root)
        if name.parts[0] not in SHARED and name.name != 'interface.py':
            yield f'{prefix}{name.as_posix()}', ''
    yield FILES, ''


def folders(typed: str) -> Iterator[str]:
    """Folders that begin with ``typed``."""
    start = typed.rpartition('/')[0]
    place = Path(start or ('/' if typed.startswith('/') else '.')).expanduser()
    try:
        names = sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith('.'))
    except OSError:
        return
    yield from (f'{start}/{name}' if '/' in typed else name for name in names)


def run_names(base: Path) -> list[str]:
    """The names of runs below a folder of runs, those of dry runs without their folder, newest first."""
    found: dict[str, float] = {}
    for root in (base, base / 'dry_run'):
        for folder in _runs_in(root, DEEPEST):
            name = folder.relative_to(root).as_posix()
            found[name] = max(found.get(name, 0.0), folder.stat().st_mtime)
    return sorted(found, key=lambda name: -found[name])


def _runs_in(folder: Path, deep: int) -> Iterator[Path]:
    try:
        inside = [entry for entry in os.scandir(folder) if entry.is_dir() and entry.name != 'dry_run']
    except OSError:
        return
    for entry in inside:
        path = Path(entry.path)
        if (path / 'checkpoints').is_dir():
            yield path
        elif deep > 1:
            yield from _runs_in(path, deep - 1)


def checkpoints(base: Path, positional: Sequence[str]) -> Iterable[str]:
    """The checkpoints of the run NAME, newest first."""
    if not positional:
        return []
    name = positional[0]
    found = {path.name for root in (base, base / 'dry_run') for path in (root / name / 'checkpoints').glob('iter_*')}
    return sorted((text for text in found if text[5:].isdecimal()), key=lambda text: -int(text[5:]))
