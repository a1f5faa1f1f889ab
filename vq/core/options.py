"""Options of a config: where each was set, which file read it, and which are unknown.

An option is set on the command line or by a file (``_kwargs_.setdefault``, ``PyConfig.load(path, name=default)``). It is known
if a file reads it or a recipe that runs declares it. An unknown option is an error wherever it was set. An option that is
declared but not used is an error on the command line only: a file may set defaults for several kinds of model.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vq.core.errors import ConfigError, listing, nearest

COMMAND_LINE = 'the command line'
_MISSING = object()


@dataclasses.dataclass(frozen=True)
class Declared:
    """An option of a recipe: a keyword-only parameter of the function ``owner``."""

    name: str
    annotation: Any
    default: Any
    meaning: str
    owner: str
    aliases: tuple[str, ...] = ()
    side: str = ''  # SIDE of an option that names another config file: SIDE.NAME is an option of that file
    short: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        return (self.name, *self.short, *self.aliases)


@dataclasses.dataclass
class Record:
    """How the options of one composition were set, declared and used."""

    file: str = ''
    read: set[str] = dataclasses.field(default_factory=set)
    origins: dict[str, str] = dataclasses.field(default_factory=dict)  # name -> the command line, or the file that set it
    declared: dict[str, Declared] = dataclasses.field(default_factory=dict)  # by names and aliases
    values: dict[str, tuple[Any, str]] = dataclasses.field(default_factory=dict)  # name -> value used by a recipe, origin
    others: dict[str, Record] = dataclasses.field(default_factory=dict)  # side -> record of the config it names

    def declare(self, declared: Iterable[Declared]) -> None:
        for option in declared:
            for name in option.names():
                self.declared.setdefault(name, option)

    def known(self) -> set[str]:
        return self.read | set(self.declared)

    def judge(self) -> None:
        """Raise for the first option that is unknown, or that the command line sets and nothing uses."""
        for name, origin in self.origins.items():
            if name in self.read:
                continue
            if name not in self.declared:
                if origin == COMMAND_LINE or not _reads_default(Path(origin), name):
                    raise self._unknown(name, origin)
            elif origin == COMMAND_LINE:
                option = self.declared[name]
                raise ConfigError(
                    f"{self.file} does not use the option '{name}' here: {option.owner} does ({option.meaning})",
                    f'Leave it out, or choose what {option.owner} builds; vq config CONFIG --options lists those in use.',
                )

    def _unknown(self, name: str, origin: str) -> ConfigError:
        side, dot, own = name.partition('.')
        asked = [self.others[side]] if dot and side in self.others else [self, *self.others.values()]
        own = own if dot and side in self.others else name
        known = {other for record in asked for other in record.known()}
        files = list(dict.fromkeys(record.file for record in asked))
        where = '' if origin == COMMAND_LINE else f'{origin}: '
        what = f'{files[0]} has no option' if len(files) == 1 else f'neither {" nor ".join(files)} has an option'
        return ConfigError(f"{where}{what} '{own}'{nearest(own, known)}", f'It reads: {listing(known) or "no options"}.')


class Options(dict[str, Any]):
    """``_kwargs_`` of a config file: a dict that records which names were read, and which file set a default."""

    def __init__(self, values: Mapping[str, Any], record: Record | None = None, file: str = '') -> None:
        super().__init__(values)
        self.record = Record() if record is None else record
        self.file = file  # the config file whose ``_kwargs_`` these are

    def __getitem__(self, key: str) -> Any:
        self.record.read.add(key)
        if not self.has(key):
            raise ConfigError(f"{self.file or 'a config'} needs the option '{key}'", f'Give it after CONFIG: {key}=VALUE')
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.record.read.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.record.read.add(key)
        return super().get(key, default)

    def has(self, key: str) -> bool:
        """Whether the option is given; this does not count as a read."""
        return super().__contains__(key)

    def peek(self, key: str) -> Any:
        """The value of an option that is given, without reading it."""
        return super().__getitem__(key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set a default for the bases of this file. This is not a read: a name that no base reads stays unknown."""
        if not self.has(key):
            self.record.origins.setdefault(key, self.file)
        return super().setdefault(key, default)

    def pop(self, key: str, default: Any = _MISSING) -> Any:  # type: ignore[override]
        self.record.read.add(key)
        return super().pop(key) if default is _MISSING else super().pop(key, default)


class Namespace(dict[str, Any]):
    """The names of a config file. A file may replace ``_kwargs_`` by a plain dict; reads of that dict are recorded too."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name == '_kwargs_' and isinstance(value, Mapping) and not isinstance(value, Options):
            value = Options(value, self['_kwargs_'].record, self['__file__'])
        super().__setitem__(name, value)


def _reads_default(file: Path, name: str) -> bool:
    """Whether ``file`` uses the value of its ``_kwargs_.setdefault(name, ...)``. A bare statement only sets a default."""
    try:
        tree = ast.parse(file.read_text(encoding='utf-8'))
    except (OSError, ValueError, SyntaxError):
        return False
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return any(_sets(node, name) and id(node) not in bare for node in ast.walk(tree))


def _sets(node: ast.AST, name: str) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == 'setdefault'
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value == name
    )
