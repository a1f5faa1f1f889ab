"""Python config files: todd's conventions, with our own loader and dumper.

Conventions kept from todd: ``_base_`` (parents, merged recursively, later wins), ``_kwargs_`` (options), ``_export_``
(the names that the file exports), ``_delete_`` (replace instead of merge), ``_override_`` (patch by path).

Differences, with reasons:

- one namespace, so that comprehensions and functions in a config see its top-level names;
- ``__file__`` is defined and tracebacks name the config file and line;
- options reach every base and every explicitly loaded file; an option from an outer file or the command line overrides
  the default of an inner ``PyConfig.load(path, name=default)``; ``_kwargs_.setdefault`` sets a default for the bases;
- an option that no file reads is an error, with the nearest name that was read;
- paths resolve relative to the file, to the working directory and to the packaged ``configs``;
- modules, functions and classes of a file without ``_export_`` stay in the file;
- lists of ``custom_imports`` add up, because a config needs the modules of its bases, too;
- ``_delete_`` and ``_override_`` work at any position in a dict, and are removed from composed configs;
- overrides are parsed paths, not ``exec``; parents must exist;
- dumping takes a millisecond and keeps ``inf`` and ``nan``;
- a composed config in JSON, as run folders hold it, is accepted too: it is data, has no options, and is never executed.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import keyword
import math
import traceback
import types
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

from vq.core import composed, config_json, old_configs, trust, type_changes
from vq.core.door import ToddConfig
from vq.core.errors import ConfigError, nearest
from vq.core.options import COMMAND_LINE, Namespace, Options, Record
from vq.core.paths import assign, descend, parse_path
from vq.core.phases import STEP_SETTINGS

_PATCHES = ('tiny',)  # top-level names of patches that are applied later: ``_delete_`` and ``_override_`` stay in them
_LEAVES = {str, int, float, bool, type(None)}  # most values of a config; used as they are, without further type checks
_WRITTEN = {'dict', 'set', 'frozenset', 'float', 'complex'}  # builtins that dumped text uses
_frames: ContextVar[tuple[dict[str, Any], ...]] = ContextVar('vq_config_frames', default=())


def packaged_configs() -> Path:
    """The ``configs`` folder: inside the installed package, or next to it in a checkout."""
    spec = importlib.util.find_spec('vq')
    assert spec is not None and spec.submodule_search_locations
    package = Path(next(iter(spec.submodule_search_locations)))
    inside = package / 'configs'
    return inside if inside.is_dir() else package.parent / 'configs'


def resolve_config(file: str | Path, folder: Path | None = None) -> Path:
    """Find a config: relative to the file that names it, to the working directory, then among the packaged ones."""
    path = Path(file).expanduser()
    candidates = [path] if path.is_absolute() else []
    if not candidates:
        if folder is not None:
            candidates.append(folder / path)
        candidates.append(Path.cwd() / path)
        root = packaged_configs()
        candidates.append(root / path)
        if path.parts and path.parts[0] == 'configs':
            candidates.append(root.joinpath(*path.parts[1:]))
    for candidate in candidates:
        twin = composed.json_twin(candidate)
        if twin is not None or candidate.is_file():
            return (twin or candidate).resolve()
    now = None if path.is_absolute() else old_configs.renamed(path, packaged_configs())
    if now is not None:
        return now.resolve()
    frames = _frames.get()
    where = f'{frames[-1]["__file__"]}: ' if frames else ''
    beside = {
        entry.name
        for candidate in candidates
        if candidate.parent.is_dir()
        for entry in candidate.parent.iterdir()
        if entry.suffix in ('.py', '.json')
    }
    raise ConfigError(
        f"{where}config file '{file}' does not exist{nearest(path.name, beside) or _like(path)}",
        f'Searched: {", ".join(map(str, candidates))}.',
    )


def _like(path: Path) -> str:
    """``; did you mean ...?`` with a packaged config, for a path whose folder is misspelt or left out."""
    root = packaged_configs()
    known = [file.relative_to(root).as_posix() for file in root.rglob('*.py')]
    same = [name for name in known if Path(name).name in (path.name, f'{path.name}.py')]
    name = path.as_posix().removeprefix('configs/')
    return nearest(name, same) or nearest(name, known) or (f"; did you mean '{same[0]}'?" if len(same) == 1 else '')


class PyConfig(ToddConfig):  # type: ignore[misc]
    """A composed config. Attribute access, recursive ``update``, ``override`` by path; ``load`` and ``dumps`` are ours."""

    @classmethod
    def load(cls, file: str | Path, **defaults: Any) -> Self:
        """Compose a config file with its bases.

        Inside a config file, options given to that file override ``defaults``.
        """
        frames = _frames.get()
        if frames:
            outer = frames[-1]
            inherited: Options = outer['_kwargs_']
            for name in defaults:
                if not inherited.has(name):
                    inherited.record.origins.setdefault(name, outer['__file__'])
            path = resolve_config(file, Path(outer['__file__']).parent)
            _check_options(path, defaults)
            given = Options({**defaults, **inherited}, inherited.record)
            return cls._compose(path, given)
        return cls.load_recorded(file, defaults)[0]

    @classmethod
    def load_recorded(cls, file: str | Path, options: Mapping[str, Any]) -> tuple[Self, Record]:
        """Compose a config file with the options of a command line. Also return the record of how they were used."""
        record = Record(str(file), origins=dict.fromkeys(options, COMMAND_LINE))
        path = resolve_config(file)
        _check_options(path, options)
        with trust.noting() as noted:
            config = cls._compose(path, Options(options, record))
        config.settle()
        if noted:  # modules of runs that the config opens
            config['custom_imports'] = trust.with_noted(config.get('custom_imports', []), noted)
        record.judge()
        return config, record

    @classmethod
    def load_beside(cls, file: str | Path, options: Mapping[str, Any]) -> tuple[Self, Record]:
        """Compose another config from inside a config file, with only these options. The caller checks the record."""
        frames = _frames.get()
        record = Record(str(file))
        folder = Path(frames[-1]['__file__']).parent if frames else None
        return cls._compose(resolve_config(file, folder), Options(options, record)), record

    @classmethod
    def loads(cls, s: str, **kwargs: Any) -> Self:
        """Compose a config given as text; bases are relative to the working directory."""
        config = cls._execute(s, Path.cwd() / '<text>', Options(kwargs))
        if not _frames.get():
            config.settle()
        return config

    @classmethod
    def _compose(cls, path: Path, options: Options) -> Self:
        opened = [frame['__file__'] for frame in _frames.get()]
        if str(path) in opened:
            raise ConfigError(
                'config files load each other in a circle: ' + ' -> '.join([*opened, str(path)]),
                'Take one of these out of _base_ or PyConfig.load.',
            )
        if composed.is_data(path):
            return cls._from_data(path)
        return cls._execute(config_json.read_text(path), path, options)

    @classmethod
    def _from_data(cls, path: Path) -> Self:
        """A composed config of a run: it has no bases and takes no options."""
        content = composed.read_trusted(path)
        for name in ('_base_', '_kwargs_', '_export_'):
            if name in content:
                raise ConfigError(f"{path} has '{name}', which a composed config cannot have", 'Give it as a Python file.')
        config = cls()
        config.update(content)
        return config

    @classmethod
    def execute(cls, path: Path) -> Self:
        """Compose a Python file even in a run folder, where files are read as data. Only for trusted files."""
        config = cls._execute(config_json.read_text(path), path, Options({}))
        config.settle()
        return config

    @classmethod
    def _execute(cls, source: str, path: Path, options: Options) -> Self:
        options.file = str(path)
        namespace = Namespace({'__file__': str(path), '__name__': '__config__', '_kwargs_': options})
        token = _frames.set((*_frames.get(), namespace))
        try:
            _run(source, path, namespace)
            config = cls()
            for base in _bases(namespace, path):
                if isinstance(base, str | Path):  # a copy: defaults set by one base do not reach the next
                    given = Options(namespace['_kwargs_'], options.record)
                    base = cls._compose(resolve_config(base, path.parent), given)
                config.update(base)
            content = namespace.get('_export_', _public(namespace))
            if not isinstance(content, Mapping):
                raise ConfigError(f'{path}: _export_ is a {type(content).__name__}', 'Write _export_ = dict(...).')
            config.update(content)
            return config
        finally:
            _frames.reset(token)

    def __setitem__(self, name: str, value: Any) -> None:
        if name == '_delete_' and self:
            if value:
                self.clear()
        elif name == '_override_' and self:
            self.override(value)
        else:
            self.data[name] = self._adopt(value, name)

    @classmethod
    def _adopt(cls, value: Any, name: str | None = None) -> Any:
        """A copy: dicts become configs, named tuples become tuples. ``name`` is the key of the value."""
        if type(value) in _LEAVES:
            return value
        if isinstance(value, list):
            return [cls._adopt(item) for item in value]
        if isinstance(value, Mapping):
            return _named_parts(value) if name == 'callbacks' else cls(value)
        if isinstance(value, tuple):
            return tuple(cls._adopt(item) for item in value)
        return set(value) if isinstance(value, set) else value

    def update(self, *others: Mapping[str, Any], **names: Any) -> None:  # type: ignore[override]
        """Merge recursively; later values win. ``_delete_`` clears this config first, ``_override_`` is applied last. An empty
        config keeps both keys, for the config it will be merged into."""
        for other in (*others, names) if names else others:
            items, empty = dict(_data_of(other)), not self.data
            delete, override = items.pop('_delete_', False), items.pop('_override_', None)
            if empty and not delete:  # a copy, which most updates are
                self.data.update({name: self._adopt(value, name) for name, value in items.items()})
                items = {}
            pending = empty or '_delete_' in self.data  # this config is itself a patch with ``_delete_``
            if delete:
                self.clear()
            for name, value in ({'_delete_': True, **items} if delete and pending else items).items():
                present = self.data.get(name)
                if name == 'type' and not delete:
                    type_changes.note(present, value)
                if name == 'callbacks' and isinstance(present, list) and isinstance(value, Mapping):
                    present = self.data[name] = _named_parts(present)  # a list becomes named parts, to merge by name
                if name == 'custom_imports' and isinstance(present, list) and isinstance(value, list):
                    value = [*present, *(module for module in value if module not in present)]
                if isinstance(present, PyConfig) and isinstance(value, Mapping):
                    present.update(_keeping_steps(present, value) if name == 'optimizers' else value)
                else:
                    self.data[name] = self._adopt(value, name)
            if override is not None and empty:
                self.data['_override_'] = self._adopt(override)
            elif override is not None:
                self.override(override)

    def settle(self) -> None:
        """After the last merge: apply and remove the remaining ``_delete_`` and ``_override_``."""
        _settle({name: value for name, value in self.data.items() if name not in _PATCHES})
        _settle_here(self)

    def override(self, other: Mapping[str, Any]) -> None:
        """Apply ``{'.a.b[-1]': value}``. The last key may be new: ``vq.core.check`` checks it later."""
        for path, value in other.items():
            steps = parse_path(path)
            if steps[-1] == 'type' and isinstance(part := descend(self, steps[:-1], path), Mapping):
                type_changes.note(part.get('type'), value)
            assign(self, steps, self._adopt(value), path)

    def dumps(self) -> str:
        """Python text from which ``loads`` makes an equal config."""
        if all(isinstance(key, str) and _is_name(key) and key not in _WRITTEN for key in self):
            return ''.join(f'{key} = {_format(self[key], 0)}\n' for key in self)
        return f'_export_ = {_format(self, 0)}\n'

    def dump(self, file: str | Path) -> None:
        """Write the config to a file: JSON if its name ends with ``.json``, else Python text."""
        path = Path(file)
        path.write_text(config_json.dumps(self) if path.suffix == '.json' else self.dumps(), encoding='utf-8')

    def diff(self, other: PyConfig, html: bool = False) -> str:
        """The lines that differ from ``other``, in unified form (or as an HTML page)."""
        ours, theirs = self.dumps().splitlines(), other.dumps().splitlines()
        if html:
            return difflib.HtmlDiff().make_file(ours, theirs)
        return '\n'.join(difflib.unified_diff(ours, theirs, lineterm='', n=2))


def plain(value: Any) -> Any:
    """A copy in plain dicts and lists, for ``json`` and other C code, to which a Config looks empty."""
    if type(value) in _LEAVES:
        return value
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in _data_of(value).items()}
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    return set(value) if isinstance(value, set) else value


def _data_of(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The dict inside a config, which is read many times faster."""
    return value.data if isinstance(value, PyConfig) else value


def _keeping_steps(present: Mapping[str, Any], optimizers: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the step settings of an optimizer that is replaced: they belong to the trainer, not to the optimizer's factory."""
    kept = dict(optimizers)
    for name, optimizer in optimizers.items():
        before = present.get(name)
        if isinstance(optimizer, Mapping) and optimizer.get('_delete_') and isinstance(before, Mapping):
            kept[name] = {**{key: before[key] for key in STEP_SETTINGS if key in before}, **optimizer}
    return kept


def _named_parts(parts: Any) -> PyConfig:
    from vq.core.parts import NamedParts

    return NamedParts.of(parts)


def _check_options(path: Path, options: Mapping[str, Any]) -> None:
    if options and composed.is_data(path):
        raise ConfigError(
            f"{path} has no option '{min(options)}': it is the composed config of a run, whose options are fixed",
            'Change its values by path, --override .trainer.iters:100, or give the config that the run was started with.',
        )


def _settle(value: Any) -> None:
    if isinstance(value, Mapping):
        for item in value.values():
            _settle(item)
        if isinstance(value, PyConfig):
            _settle_here(value)
    elif isinstance(value, list | tuple):
        for item in value:
            _settle(item)


def _settle_here(config: PyConfig) -> None:
    config.data.pop('_delete_', None)
    override = config.data.pop('_override_', None)
    if override is not None:
        config.override(override)


@functools.lru_cache(maxsize=1024)
def _compiled(source: str, file: str) -> types.CodeType:
    """Cached, because a base is executed for every child and every set of options, always with the same text."""
    return compile(source, file, 'exec', dont_inherit=True)


def _run(source: str, path: Path, namespace: dict[str, Any]) -> None:
    try:
        exec(_compiled(source, str(path)), namespace)
    except ConfigError:
        raise
    except SyntaxError as error:
        raise ConfigError(f'{path}:{error.lineno}: {error.msg}', 'Fix the syntax of the config file.') from error
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f'{path}:{lines[-1]}' if lines else str(path)
        raise ConfigError(f'{where}: {type(error).__name__}: {error}', 'Fix this line of the config file.') from error


def _bases(namespace: dict[str, Any], path: Path) -> Iterable[Any]:
    bases = namespace.get('_base_', [])
    if isinstance(bases, str) or not isinstance(bases, list | tuple):
        raise ConfigError(f'{path}: _base_ must be a list of paths or configs', "Write _base_ = ['parent.py'].")
    return bases


def _public(namespace: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in namespace.items()
        if (not name.startswith('_') or name in ('_override_', '_delete_'))
        and not isinstance(value, types.ModuleType)
        and not callable(value)
        and type(value).__module__ not in ('__future__', 'typing')
    }


def _is_name(key: str) -> bool:
    """Whether ``key = 1`` and ``dict(key=1)`` keep the key unchanged (Python normalizes some non-ASCII letters)."""
    return key.isidentifier() and key.isascii() and not key.startswith('_') and not keyword.iskeyword(key)


def _format(value: Any, depth: int) -> str:
    """``repr`` that breaks long containers over lines and writes every number so that it can be read back."""
    if isinstance(value, Mapping):
        names = all(isinstance(key, str) and (_is_name(key) or key in ('_delete_', '_override_')) for key, _ in value.items())
        items = [
            f'{key}={_format(item, depth + 1)}' if names else f'{_format(key, depth + 1)}: {_format(item, depth + 1)}'
            for key, item in value.items()
        ]
        return _wrap('dict(' if names else '{', items, ')' if names else '}', depth)
    if isinstance(value, list):
        return _wrap('[', [_format(item, depth + 1) for item in value], ']', depth)
    if isinstance(value, tuple):
        items = [_format(item, depth + 1) for item in value]
        return f'({items[0]},)' if len(items) == 1 else _wrap('(', items, ')', depth)
    if isinstance(value, set | frozenset):
        items = sorted(_format(item, depth + 1) for item in value)
        return _wrap(f'{"set" if isinstance(value, set) else "frozenset"}([', items, '])', depth)
    if value is None or isinstance(value, bool):
        return repr(value)
    for kind in (int, str, bytes):  # by ``repr`` of the base type: that of enums and NumPy scalars cannot be read back
        if isinstance(value, kind):
            return kind.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value) if math.isfinite(value) else f"float('{float(value)}')"
    if isinstance(value, complex):
        return f'complex({_format(value.real, depth)}, {_format(value.imag, depth)})'
    if isinstance(value, Path):
        return repr(str(value))
    raise ConfigError(
        f'a config holds a {type(value).__name__} ({value!r:.60}), which cannot be saved',
        'Keep numbers, strings, lists and dicts in configs; name classes and functions by type.',
    )


def _wrap(opening: str, items: list[str], closing: str, depth: int) -> str:
    line = opening + ', '.join(items) + closing
    if len(line) + 4 * depth <= 110 and '\n' not in line:
        return line
    indent = '    ' * (depth + 1)
    return f'{opening}\n' + ''.join(f'{indent}{item},\n' for item in items) + '    ' * depth + closing
