"""Judge a config against the signatures of the parts it names, without building anything.

Every problem is found at once, each with its path: unknown types, misspelt keys, missing keys, values of another type.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from vq.core.bindings import filled as bound
from vq.core.bindings import without_open
from vq.core.errors import ConfigError, UserError, listing, nearest
from vq.core.parameters import Parameter, dataclass_in, describe, fits, parameters_of, takes_any_keyword
from vq.core.registry import TreeMeta, elements_of, find_item, is_part, registry_for, settings_of

Problem = tuple[str, str]  # what is wrong (opens with its path), what to do


def find_problems(registry: TreeMeta, config: Any, path: str) -> Iterator[Problem]:
    """Problems of the part ``config`` that is to be built from ``registry``."""
    if not isinstance(config, Mapping):
        yield (
            f'{path}: a part is needed here, not {config!r:.60}',
            f'Write dict(type=...) with an item of {registry.__name__}.',
        )
        return
    kind = config.get('type')
    try:
        owner, item = find_item(registry, kind, path)
        given = without_open(item, settings_of(config, owner, item, path))
        parameters = parameters_of(item)
    except UserError as error:
        yield (error.message if error.message.startswith(f'{path}: ') else f'{path}: {error.message}'), error.hint
        return
    wired = {
        target for target, source in getattr(item, 'wires', {}).items() if given.get(source.partition('.')[0]) is not None
    } | bound(item, given)
    name = kind if isinstance(kind, str) else getattr(item, '__name__', repr(item))
    yield from _judge(registry.root(), name, parameters, given, path, takes_any_keyword(item), wired)


def _judge(
    root: TreeMeta,
    kind: str,
    parameters: dict[str, Parameter],
    given: Mapping[str, Any],
    path: str,
    loose: bool,
    wired: set[str],
) -> Iterator[Problem]:
    for key in given:
        if key not in parameters and not loose:
            yield (
                f"{path}: {kind} has no parameter '{key}'{nearest(str(key), parameters)}",
                f'It takes: {listing(parameters) or "nothing"}.',
            )
    for name, parameter in parameters.items():
        where = f'{path}.{name}'
        if name not in given:
            if parameter.required:
                yield f"{path}: {kind} needs '{name}' ({describe(parameter.annotation)})", f'Add {name}=... to this part.'
            continue
        filled = {target.partition('.')[2] for target in wired if target.partition('.')[0] == name}
        yield from _judge_value(root, given[name], parameter.annotation, where, filled)


def _judge_value(root: TreeMeta, value: Any, annotation: Any, path: str, filled: Collection[str] = ()) -> Iterator[Problem]:
    registry, record, element = registry_for(annotation, root), dataclass_in(annotation), elements_of(annotation, value)
    parts = element is not None and registry_for(element, root) is not None
    of_each = [name.removeprefix('*.') for name in filled if name.startswith('*.')]
    if registry is not None and isinstance(value, Mapping) and (is_part(value) or element is None):
        for message, hint in find_problems(registry, value, path):
            if not any(message.startswith(f'{path}: ') and f"needs '{name}'" in message for name in filled):
                yield message, hint
    elif record is not None and isinstance(value, Mapping):
        yield from _judge(root, record.__name__, parameters_of(record), value, path, False, set())
    elif element is not None and isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if not (parts and item is None):
                yield from _judge_value(root, item, element, f'{path}[{index}]', of_each)
    elif element is not None and isinstance(value, Mapping):
        for key, item in value.items():
            if not (parts and item is None):  # None switches an inherited entry off
                yield from _judge_value(root, item, element, f'{path}.{key}', of_each)
    elif not fits(value, annotation):
        yield (
            f'{path}: {value!r:.60} is a {type(value).__name__}, and {describe(annotation)} is needed',
            'Give a value of that type.',
        )


def check_config(registry: TreeMeta, config: Any, path: str) -> None:
    """Raise one error that lists all problems of a part."""
    problems = list(find_problems(registry, config, path))
    if len(problems) == 1:
        raise ConfigError(*problems[0])
    if problems:
        lines = [f'{message}. {hint}' for message, hint in problems]
        raise ConfigError(
            f'{len(problems)} problems in the config:\n  ' + '\n  '.join(lines),
            'Mend these, then look at the whole with python -m vq.config CONFIG.',
        )
