"""Trust in the author of a run. Opening a run executes none of its code, unless the user grants trust.

The user's own input is trusted: config files named on the command line, and the modules in their ``custom_imports``. The
files of a run folder are data. Only two things in the folder can be executed: the modules that its config names in
``custom_imports``, and a ``config.py`` that has more than literals. Both need ``vq.load(..., trust=True)`` or ``--trust``.
A config that opens a run (``tokenizer_run``) needs neither for modules that it names itself.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from vq.core.errors import ConfigError, listing

HINT = 'If you trust the author of the run: trust=True, as in vq.load(..., trust=True), or --trust on the command line.'

_noted: ContextVar[list[tuple[tuple[str, ...], str]] | None] = ContextVar('vq_noted', default=None)
_granted: ContextVar[bool] = ContextVar('vq_trust', default=False)


class Untrusted(ConfigError):
    """Opening a run would execute code that the run names or holds."""

    def __init__(self, message: str, hint: str = HINT) -> None:
        super().__init__(message, hint)


def granted() -> bool:
    """Whether runs opened now may execute code."""
    return _granted.get()


@contextmanager
def trusting(flag: bool) -> Iterator[None]:
    """Grant trust inside the block if ``flag`` is set; trust granted outside of the block stays."""
    token = _granted.set(flag or _granted.get())
    try:
        yield
    finally:
        _granted.reset(token)


def module_names(modules: Any, where: str) -> tuple[str, ...]:
    """``custom_imports`` of a config, checked: a list of module names."""
    if not isinstance(modules, list | tuple) or not all(isinstance(name, str) for name in modules):
        raise ConfigError(f'{where}: custom_imports is {modules!r:.60}', "Write custom_imports = ['package.module'].")
    return tuple(modules)


def trusted_modules(modules: Any, where: str) -> tuple[str, ...]:
    """``custom_imports`` of a config that came with a run; an error that lists them unless trust is granted.

    Modules that this process has imported already are not executed again, and need no trust.
    """
    names = module_names(modules, where)
    new = [name for name in names if name not in sys.modules]
    if new and not granted():
        raise Untrusted(f'{where} names modules that would be imported, and so executed: {listing(new)}')
    return names


def noted_modules(modules: Any, where: str) -> tuple[str, ...]:
    """``custom_imports`` of a run that a config opens, for the config to import.

    While ``noting`` they are noted, and () is returned: whether they need trust is known when the config is complete, because
    the config can name them itself. Nothing is imported before that.
    """
    noted = _noted.get()
    if noted is None:
        return trusted_modules(modules, where)
    noted.append((module_names(modules, where), where))
    return ()


@contextmanager
def noting() -> Iterator[list[tuple[tuple[str, ...], str]]]:
    """Collect (modules, where they are named) of the runs that a config opens."""
    noted: list[tuple[tuple[str, ...], str]] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def with_noted(own: Any, noted: Iterable[tuple[tuple[str, ...], str]]) -> list[str]:
    """The user's ``own`` modules, then those of runs. A run's module that the user does not name himself needs trust."""
    found = [*module_names(own, 'the config')]
    for modules, where in noted:
        found += trusted_modules([name for name in modules if name not in found], where)
    return found


def import_modules(modules: Iterable[str]) -> None:
    """Import modules that register parts, with the working directory on ``sys.path``."""
    for module in modules:
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"custom_imports: '{module}' cannot be imported: {error}",
                'Run from the folder that holds it, or name that folder: PYTHONPATH=FOLDER before the command; or install it.',
            ) from error
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:  # any code can be in it
            raise ConfigError(
                f"custom_imports: '{module}' fails when it is imported{_line_of(error)}: {type(error).__name__}: {error}",
                'Correct the module, or take it out of custom_imports.',
            ) from error


def _line_of(error: BaseException) -> str:
    """The file and line where an error was raised, for messages."""
    frames = traceback.extract_tb(error.__traceback__)
    return f' ({frames[-1].filename}:{frames[-1].lineno})' if frames else ''
