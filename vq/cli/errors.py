"""How a command ends: 0 done, 2 bad usage or config, 1 anything else. The last line of an error says what to do."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from vq.core import output
from vq.core.environment import COMMAND
from vq.core.errors import UserError
from vq.core.trust import Untrusted
from vq.launch import failures
from vq.launch.failures import Failure

# why the system refuses a file that is there: permissions, a folder in its place, a circle of links, a broken disk
UNREADABLE = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG)


class Main(Protocol):
    """The body of a command: arguments (``sys.argv`` if None) -> exit code."""

    __name__: str

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def command(body: Main) -> Main:
    """Turn the errors of a command into messages and exit codes. Lost output does not end the command; see vq/core/output.py.

    A command whose output is lost to a full disk has exit code 1, unless its module sets ``OUTLIVES_OUTPUT``. A module that
    sets ``ONLY_PRINTS`` does not mention a reader that has gone: ``vq.config CONFIG | head -1``.
    """

    @functools.wraps(body)
    def run(argv: Sequence[str] | None = None) -> int:
        with output.lasting() as out:
            code = attempt(argv)
            module = sys.modules[body.__module__]
            quiet = getattr(module, 'ONLY_PRINTS', False) and not output.is_full(out)
            if (lost := output.lost()) and not quiet:
                to_log_file(logging.WARNING, f'output was lost: {lost}')
                print(f'output was lost: {lost}', file=sys.stderr, flush=True)
            outlives = getattr(module, 'OUTLIVES_OUTPUT', False)
            return code or int(output.is_full(out) and not outlives)

    def attempt(argv: Sequence[str] | None) -> int:
        try:
            return body(argv)
        except UserError as error:
            hint = error.hint
            if isinstance(error, Untrusted):
                hint = f'If you trust the author of the run, repeat with --trust: {typed(body, argv)} --trust'
            say(error.message, hint, error.exit_code)
            return error.exit_code
        except KeyboardInterrupt:
            say('interrupted', 'Checkpoints written so far are complete; go on with --auto-resume.')
            return 1
        except Exception as error:
            if isinstance(error, OSError) and error.errno in UNREADABLE and error.filename is not None:
                say(f'{error.filename} cannot be opened: {error.strerror}', 'See its permissions, and the disk it is on.', 2)
                return 2
            traceback.print_exc()
            say(f'{type(error).__name__}: {error}', 'This is not a usage error: the traceback above says where it happened.')
            return 1

    return run


def typed(body: Main, argv: Sequence[str] | None) -> str:
    """The command line to repeat. A rank reads it from the environment, where its launcher has put it."""
    if argv is None and os.environ.get(COMMAND):
        return os.environ[COMMAND]
    launchers = [Path(word).name for word in sys.orig_argv[1:2]]
    if argv is None and launchers in (['auto_torchrun'], ['vq']):
        return shlex.join([*launchers, *sys.orig_argv[2:]])
    if argv is None and sys.orig_argv[1:3] == ['-m', 'vq']:
        return shlex.join(['python', '-m', 'vq', *sys.orig_argv[3:]])
    program: str = sys.modules[body.__module__].make_parser().door  # type: ignore[attr-defined]
    launcher = 'auto_torchrun' if int(os.environ.get('WORLD_SIZE') or 1) > 1 else 'python'
    words = sys.argv[1:] if argv is None else argv
    return shlex.join([launcher, *([] if program.endswith('.py') else ['-m']), program, *words])


def leave(message: str, hint: str, code: int, stopped: bool = False) -> None:
    """Write a rank's message for its launcher. Only the first message of an attempt is kept. No effect without a launcher."""
    path = os.environ.get(failures.VARIABLE)
    if path:
        with contextlib.suppress(FileExistsError), open(path, 'x') as file:
            json.dump(vars(Failure(message, hint, code, stopped, rank=os.environ.get('RANK'))), file)


def to_log_file(level: int, text: str) -> None:
    """A line of the run's log.txt alone."""
    logger = logging.getLogger('vq')
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(logger.makeRecord('vq', level, '', 0, text, (), None))


def say(message: str, hint: str, code: int = 1) -> None:
    """Print an error, hint last, and write it to the run's log. ``code`` is the exit code that the process will have."""
    leave(message, hint, code)
    to_log_file(logging.ERROR, f'{message} {hint}')
    print(f'error: {message}', *([hint] if hint else []), sep='\n', file=sys.stderr, flush=True)
