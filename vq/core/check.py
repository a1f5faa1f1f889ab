"""Check a config against the signatures of the parts it names, without building anything.

All problems are found in one pass, each with its path: unknown types, misspelt keys, missing keys, values of another type.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from vq.core.bindings import filled as bound
from vq.core.errors import ConfigError, UserError, listing, nearest
from vq.core.parameters import Parameter, describe, fits, parameters_of
from vq.core.registry import TreeMeta, entries_of, open_part, slot_of, unknown_keys

Problem = tuple[str, str]  # message (begins with the path), hint


def find_problems(registry: TreeMeta, config: Any, path: str, beside: type | None = None) -> Iterator[Problem]:
    """Problems of the part ``config`` that is to be built from ``registry``; ``beside``: see ``beside_of``."""
    if not isinstance(config, Mapping):
        yield (
            f'{path}: a part is needed here, not {config!r:.60}',
            f'Write dict(type=...) with an item of {registry.__name__}.',
        )
        return
    try:
        opened = open_part(registry, config, path, beside)
    except UserError as error:
        yield (error.message if error.message.startswith(f'{path}: ') else f'{path}: {error.message}'), error.hint
        return
    given = opened.values
    wired = {
        target
        for target, source in getattr(opened.item, 'wires', {}).items()
        if given.get(source.partition('.')[0]) is not None
    } | bound(opened.item, given)
    yield from unknown_keys(opened, path)
    yield from _judge(registry.root(), opened.name, opened.parameters, given, path, wired)
    if beside is not None:
        yield from _judge(registry.root(), beside.__name__, opened.beside, opened.shared, path, set())


def _judge(
    root: TreeMeta, kind: str, parameters: dict[str, Parameter], given: Mapping[str, Any], path: str, wired: set[str]
) -> Iterator[Problem]:
    for name, parameter in parameters.items():
        where = f'{path}.{name}'
        if name not in given:
            if parameter.required:
                yield f"{path}: {kind} needs '{name}' ({describe(parameter.annotation)})", f'Add {name}=... to this part.'
            continue
        filled = {target.partition('.')[2] for target in wired if target.partition('.')[0] == name}
        yield from _judge_value(root, given[name], parameter.annotation, where, filled)


def _judge_value(root: TreeMeta, value: Any, annotation: Any, path: str, filled: Collection[str] = ()) -> Iterator[Problem]:
    slot = slot_of(annotation, value, root)
    of_each = [name.removeprefix('*.') for name in filled if name.startswith('*.')]
    if slot.registry is not None:
        for message, hint in find_problems(slot.registry, value, path, slot.beside):
            if not any(message.startswith(f'{path}: ') and f"needs '{name}'" in message for name in filled):
                yield message, hint
    elif slot.record is not None:
        parameters = parameters_of(slot.record)
        for key in value:
            if key not in parameters:
                yield (
                    f"{path}: {slot.record.__name__} has no parameter '{key}'{nearest(str(key), parameters)}",
                    f'It takes: {listing(parameters) or "nothing"}.',
                )
        yield from _judge(root, slot.record.__name__, parameters, value, path, set())
    elif slot.element is not None:
        for _, item, where in entries_of(value, slot.parts, path):
            yield from _judge_value(root, item, slot.element, where, of_each)
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
            'Fix these, then print the whole config with vq config CONFIG.',
        )
