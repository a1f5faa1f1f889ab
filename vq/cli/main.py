"""The command ``vq``: options of the launcher, then a command with its arguments. ``python -m vq`` is the same.

A command that runs on ranks is started as auto_torchrun starts it: on one device in this process, else one process per GPU.
This module imports neither torch nor todd, and bodies are imported by name, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Sequence

from vq.cli.arguments import parse
from vq.cli.commands import COMMANDS, OTHER_WORDS, Command
from vq.core.errors import UserError, nearest
from vq.launch import main as launcher

USAGE = 'vq [OPTIONS OF THE LAUNCHER] COMMAND [ARGUMENTS ...]'
EPILOG = """
The options above start processes, and stand before the command:
  vq --nproc-per-node 2 train NAME CONFIG
  vq --nnodes 2 --node-rank 1 --master-addr one train NAME CONFIG      the second of two machines
  srun --ntasks-per-node=1 vq train NAME CONFIG                        in an sbatch script

vq COMMAND --help lists the arguments of a command. The same as modules: python -m vq.train, auto_torchrun -m vq.train.
"""


def main(argv: Sequence[str] | None = None) -> int:
    words = [*(sys.argv[1:] if argv is None else argv)]
    try:
        return run(words)
    except UserError as error:
        print(f'error: {error.message}', *([error.hint] if error.hint else []), sep='\n', file=sys.stderr, flush=True)
        return error.exit_code


def run(words: list[str]) -> int:
    if words[:1] == ['__complete']:  # the scripts of vq completion
        from vq.cli.completing import complete

        print('\n'.join(complete(words[1:])))
        return 0
    parser = make_parser()
    if words in ([], ['help']):
        parser.print_help()
        return 0
    options = launcher.read_options(words, parser)
    name, *arguments = options.command
    command = find(name)
    before = words[: len(words) - len(options.command)]
    refuse_late_options(name, arguments, before)
    if not command.ranks:
        if before:
            raise UserError(f"vq {name} runs in one process, so '{shlex.join(before)}' does not apply", 'Leave it out.')
        return call(name, command, arguments)
    if {'-h', '--help'} & {*arguments[: arguments.index('--') if '--' in arguments else None]}:
        return call(name, command, arguments)
    body = importlib.import_module(command.body)
    parse(body.make_parser(), arguments)  # a usage error, once and before any process is started
    options.module, options.command = True, [command.door, *arguments]
    return launcher.start(options, shlex.join([*called_as(), *words]))


def call(name: str, command: Command, arguments: list[str]) -> int:
    """Run the body in this process."""
    sys.argv = [f'vq {name}', *arguments]
    sys.path.insert(0, os.getcwd())  # as python -m: modules of the user are found
    code: int = importlib.import_module(command.body).main()
    return code


def find(name: str) -> Command:
    if name in COMMANDS:
        return COMMANDS[name]
    other = OTHER_WORDS.get(name)
    by_door = next((known for known, command in COMMANDS.items() if name == command.door), None)
    meant = f"; '{other or by_door}' does that" if other or by_door else nearest(name, COMMANDS)
    raise UserError(f"vq has no command '{name}'{meant}", f'It has: {", ".join(COMMANDS)}. See vq --help.')


def refuse_late_options(name: str, arguments: Sequence[str], before: Sequence[str]) -> None:
    """An option of the launcher behind the command would be an unknown one of the command."""
    for position, word in enumerate(arguments):
        flag = word.partition('=')[0].replace('_', '-')
        if flag.startswith('--') and flag[2:] in launcher.OPTIONS:
            rest = [*arguments]
            moved = [rest.pop(position)]
            if '=' not in word and position < len(rest):
                moved.append(rest.pop(position))
            line = shlex.join(['vq', *before, *moved, name, *rest])
            raise UserError(f'{flag} is an option of the launcher, and stands before the command', f'Write: {line}')


def called_as() -> list[str]:
    """How this program was called, for messages that repeat the command: ``vq``, or ``python -m vq``."""
    return ['python', '-m', 'vq'] if sys.orig_argv[1:3] == ['-m', 'vq'] else ['vq']


def make_parser() -> argparse.ArgumentParser:
    import vq

    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {command.about}' for name, command in COMMANDS.items()]
    about = 'Image tokenizers, and generators of their tokens.\n\ncommands:\n' + '\n'.join(lines)
    parser = launcher.make_parser('vq', USAGE, about, EPILOG)
    parser.add_argument('--version', action='version', version=f'vq {vq.__version__}')
    return parser


if __name__ == '__main__':
    sys.exit(main())
