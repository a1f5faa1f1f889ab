"""The worker of ``same.py``, run in a process that imports one checkout: its entries, its composed configs, its built parts.

    python -P _same_worker.py QUESTION.json ANSWER.json        with PYTHONPATH=CHECKOUT

It runs on checkouts of different age, so it uses few functions and looks for each in all its former modules.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import vq

HOME = Path(vq.__file__).resolve().parents[1]
PLACES = ('vq.assembly', 'vq.cli')  # packages of composing and counting, newest first
LONGEST = 64  # longer lists, such as the files of a dataset, are described by their length
PLAIN = (bool, int, float, str, Path)
SECTIONS = ('model', 'dataset', 'dataloader', 'strategy', 'callbacks', 'metrics')


def found_in_places(module: str, name: str, otherwise: Any = None) -> Any:
    """``name`` of the first existing ``PLACE.module``."""
    for place in PLACES:
        try:
            return getattr(importlib.import_module(f'{place}.{module}'), name)
        except ModuleNotFoundError as error:
            if error.name not in (place, f'{place}.{module}'):
                raise
    if otherwise is None:
        raise SystemExit(f'{HOME} has {name} in none of {", ".join(f"{place}.{module}" for place in PLACES)}')
    return otherwise


def encoded(value: Any) -> Any:
    """JSON that preserves Python types. The path of the checkout is replaced by a placeholder."""
    if isinstance(value, str):
        return value.replace(str(HOME), '<checkout>')
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {'(float)': repr(value)}
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else f'({type(key).__name__}) {key}': encoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [encoded(item) for item in value]
    if isinstance(value, tuple):
        return {'(tuple)': [encoded(item) for item in value]}
    if isinstance(value, set | frozenset):
        return {'(set)': sorted(map(repr, value))}
    if isinstance(value, Path):
        return {'(path)': encoded(str(value))}
    return {'(object)': f'{type(value).__name__} {getattr(value, "__qualname__", "")}'.strip()}


# composing


def entries() -> list[str]:
    """The configs of whole experiments, as the tests of the checkout define them."""
    found: list[str] = importlib.import_module('tests.shipped').entries()
    return found


def composed(case: Mapping[str, Any]) -> Any:
    """The composed config of a case, or the error."""
    file = HOME / 'configs' / case['entry']
    if not file.is_file():
        return {'(vanished)': str(file.relative_to(HOME))}
    from vq.core.errors import UserError

    try:
        return found_in_places('compose', 'compose')(str(file), dict(case['options']), {}, tiny=case['tiny'])
    except UserError as error:
        return {'(error)': f'{error.message}. {error.hint}'}


def defaults() -> dict[str, dict[str, Any]]:
    """Name of a registered item -> defaults of its parameters. ``Item.parameter`` -> defaults of the record it takes."""
    from vq.core.parameters import dataclass_in, parameters_of
    from vq.registries import VQRegistry

    VQRegistry.names()
    found: dict[str, dict[str, Any]] = {}
    for registry in VQRegistry.tree():
        for name, item in registry.data.items():
            for parameter in parameters_of(item).values():
                record = dataclass_in(parameter.annotation)
                if record is not None:
                    found[f'{name}.{parameter.name}'] = defaults_of(record)
            found[name] = {} if name in found else defaults_of(item)  # ambiguous if two items have the same name
    return found


def defaults_of(item: Any) -> dict[str, Any]:
    parameters = inspect.signature(item).parameters.values()
    return {parameter.name: encoded(parameter.default) for parameter in parameters if parameter.default is not parameter.empty}


# building


class Described:
    """Descriptions of built parts. ``strict``: classes, tensors, requires_grad. ``loose``: attributes with plain values, which
    may exist in one checkout only.
    """

    def __init__(self) -> None:
        self.strict: dict[str, Any] = {}
        self.loose: dict[str, Any] = {}
        self.seen: set[int] = set()

    def runner(self, runner: Any, which: str) -> None:
        self.strict[which] = type(runner).__name__
        parts = {name: getattr(runner, name) for name in SECTIONS if hasattr(runner, name)}
        factories = getattr(runner, 'factories', None) or getattr(runner, 'optimizers', None)
        for name, part in {**parts, **({'optimizers': factories} if factories else {})}.items():
            if name == 'callbacks':
                part = by_class(part)
            many = part.items() if isinstance(part, Mapping) else [('', part)]
            for key, item in many:
                path = '.'.join(filter(None, (which, name, key)))
                self.strict[path] = name_of(item)
                self.part(item, path)

    def part(self, value: Any, path: str) -> None:
        import torch
        from torch import nn

        if isinstance(value, nn.Module):
            self.module(value, path)
        elif isinstance(value, functools.partial):
            self.loose[path] = name_of(value)
            self.each(value.keywords, path)
        elif isinstance(value, torch.Tensor):
            self.loose[path] = describe(value)
        elif isinstance(value, Mapping):
            self.each(value, path)
        elif isinstance(value, list | tuple):
            self.list(value, path)
        elif type(value).__module__.startswith('vq.') and id(value) not in self.seen:
            self.seen.add(id(value))
            self.loose[path] = name_of(value)
            self.each(public(value), path)
        elif value is None or isinstance(value, PLAIN):
            self.loose[path] = encoded(value)

    def list(self, values: Any, path: str) -> None:
        if len(values) > LONGEST:
            self.loose[path] = f'{len(values)} items'
        elif all(value is None or isinstance(value, PLAIN) for value in values):
            self.loose[path] = encoded(list(values))
        else:
            self.each({str(index): item for index, item in enumerate(values)}, path)

    def each(self, values: Mapping[Any, Any], path: str) -> None:
        for name, value in values.items():
            self.part(value, f'{path}.{name}')

    def module(self, module: Any, path: str) -> None:
        if id(module) in self.seen:
            return
        self.seen.add(id(module))
        self.strict[path] = name_of(module)
        for name, child in module.named_modules(remove_duplicate=False):
            self.seen.add(id(child))
            self.strict[f'{path}.{name}'] = name_of(child)
            self.each(public(child), f'{path}.{name}' if name else path)
        for name, parameter in module.named_parameters(remove_duplicate=False):
            self.strict[f'{path}.{name} (parameter)'] = f'{describe(parameter)}, trained: {parameter.requires_grad}'
        for name, tensor in module.state_dict().items():
            self.strict[f'{path}.{name} (state)'] = describe(tensor)


def by_class(parts: Any) -> dict[str, Any]:
    """Parts of a list or dict, by class name; further parts of a class are numbered."""
    found: dict[str, Any] = {}
    for part in parts.values() if isinstance(parts, Mapping) else parts:
        taken = sum(key.partition('#')[0] == name_of(part) for key in found)
        found[name_of(part) + (f'#{taken}' if taken else '')] = part
    return found


def public(part: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if not name.startswith('_')}


def name_of(part: Any) -> str:
    if isinstance(part, functools.partial):
        return f'partial {getattr(part.func, "__name__", type(part.func).__name__)}'
    return type(part).__name__


def describe(tensor: Any) -> str:
    return f'{re.sub("^torch.", "", str(tensor.dtype))} {tuple(tensor.shape)}'


def built(case: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """('strict' or 'loose', descriptions) of the runners of a case; an error takes the place of a runner."""
    import torch

    from vq.core.errors import UserError
    from vq.registries import VQRunnerRegistry

    described, config = Described(), composed(case)
    on_meta = found_in_places('counting', 'on_meta', lambda: torch.device('meta'))  # ours skips random values
    for which in ('trainer', 'validator'):
        if which not in config:
            continue
        try:
            with on_meta():
                runner = VQRunnerRegistry.build(found_in_places('compose', 'runner_config')(config, which), which)
            described.runner(runner, which)
        except UserError as error:
            described.strict[which] = f'cannot be built: {error.message}. {error.hint}'
    if not described.strict:
        described.strict['config'] = encoded(config)
    yield 'strict', described.strict
    yield 'loose', described.loose


def main() -> None:
    question, answer = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    found: dict[str, Any] = {'imported': vq.__file__}
    if question['mode'] == 'entries':
        found['entries'] = entries()
    elif question['mode'] == 'compose':
        found['configs'] = [encoded(composed(case)) for case in question['cases']]
        found['defaults'] = defaults()
    else:
        found['built'] = [dict(built(case)) for case in question['cases']]
    answer.write_text(json.dumps(found))


if __name__ == '__main__':
    main()
