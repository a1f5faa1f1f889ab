"""What may differ between an old and a new checkout without anything else being computed: the rules of ``same.py``.

``RULES`` bring a composed config of either side into one form. ``ALLOWED`` are differences that may remain. Each is a small
function with a sentence that says what it takes for equal. Two equal configs stay equal under all of them, and two configs
that are not may only become so by a sentence written here.
"""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Config = dict[str, Any]

ABSENT = '(absent)'
STEP_DEFAULTS = {'clip': None, 'schedule': None, 'scale_lr': 'none', 'base_batch': 256}

# tables: what else is known to have another name, to follow from the model, or to have been added on purpose

RENAMED_TYPES: dict[str, str] = {}  # old name of a registered item -> new name
RENAMED_KEYS: dict[tuple[str, str], str] = {}  # (new name of an item, old name of its parameter) -> new name
OPTIONAL_PARTS = ('callbacks', 'metrics', 'losses', 'penalties', 'optimizers')  # dicts of parts: None switches an entry off
BOUND = (  # paths of values that a model decides when it is built
    'validator.metrics.*.codebook_size',
    'validator.metrics.*.codebook_sizes',
    '*.model.generator.token_shape',
    '*.model.generator.codebook_size',
    '*.model.generator.codebook_sizes',
    '*.model.generator.network.vocabulary',
    '*.model.generator.network.length',
    '*.model.generator.network.grid',
    '*.model.generator.network.prefix',
)
ADDED = (  # (entry, path of what only the new side has, why)
    ('digits/vqgan.py', 'trainer.callbacks.eval', 'it evaluates while it trains: its list of callbacks had lost that one'),
    ('digits/vqgan.py', 'trainer.callbacks.EvalCallback', 'the same, built'),
    ('digits/decoder.py', 'trainer.callbacks.eval', 'with ir_config digits/vqgan.py, whose callbacks it takes'),
    *(
        (entry, f'trainer.callbacks.{name}', 'the runner has it by default; the list of the tiny form had left it out')
        for entry in ('digits/vqgan.py', 'digits/decoder.py', 'vq/folder.py', 'vq/imagenet.py')
        for name in ('git', 'progress', 'GitCallback', 'ProgressCallback')
    ),
    ('*', 'trainer.model.generator.network.rope', 'the network is told how to place tokens, and the grid follows from them'),
    ('*', 'validator.model.generator.network.rope', 'the same'),
)


@dataclasses.dataclass(frozen=True)
class Difference:
    """``old`` and ``new`` at ``path``; ``kind``: the item whose argument it is, or ``Item.argument`` inside its record."""

    path: str
    old: Any
    new: Any
    kind: str = ''

    @property
    def key(self) -> str:
        return self.path.rpartition('.')[2]


@dataclasses.dataclass(frozen=True)
class Context:
    """Where a difference was found, and the default arguments that each side declares."""

    entry: str
    defaults: Mapping[str, Mapping[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)  # side -> item -> values


# rules that bring a config into one form


def without_tiny(config: Config) -> None:
    config.pop('tiny', None)


def short_types(config: Config) -> None:
    for part in parts_of(config):
        name = last_name(part['type'])
        part['type'] = RENAMED_TYPES.get(name, name)


def renamed_keys(config: Config) -> None:
    for part in parts_of(config):
        for (kind, old), new in RENAMED_KEYS.items():
            if part['type'] == kind and old in part:
                part[new] = part.pop(old)


def without_none(config: Config) -> None:
    for value in dicts_of(config):
        for name in OPTIONAL_PARTS:
            if isinstance(value.get(name), dict):
                value[name] = {key: part for key, part in value[name].items() if part is not None}


def steps_in_optimizers(config: Config) -> None:
    trainer = config.get('trainer', {})
    callbacks, optimizers = trainer.get('callbacks'), trainer.get('optimizers', {})
    if isinstance(callbacks, list):
        for step in [part for part in callbacks if is_part(part, 'OptimizeCallback')]:
            chosen = [name for name in optimizers if step.get('optimizer') in (None, name)]
            if chosen:  # else it is of no optimizer there is: it stays, and is a difference
                callbacks.remove(step)
            for name in chosen:
                optimizers[name].update({key: copy.deepcopy(step[key]) for key in STEP_DEFAULTS if key in step})
    for optimizer in optimizers.values():
        for key, default in STEP_DEFAULTS.items():
            if key in optimizer and optimizer[key] == default:
                del optimizer[key]


def callbacks_by_class(config: Config) -> None:
    for runner in ('trainer', 'validator'):
        callbacks = config.get(runner, {}).get('callbacks')
        if not isinstance(callbacks, dict | list):
            continue
        listed = list(callbacks.values()) if isinstance(callbacks, dict) else callbacks
        named: dict[str, Any] = {}
        for part in listed:
            if part is None:  # where an OptimizeCallback stood
                continue
            name = snake(part['type'].removesuffix('Callback')) if isinstance(part, dict) else 'no part'
            taken = sum(key.partition('#')[0] == name for key in named)
            named[name + (f'#{taken}' if taken else '')] = part
        config[runner]['callbacks'] = dict(sorted(named.items()))
        if not named:
            del config[runner]['callbacks']


@dataclasses.dataclass(frozen=True)
class Rule:
    says: str
    apply: Callable[[Config], None]


RULES = (
    Rule(
        'The patch `tiny` is compared by what it makes of a config, in the tiny form, and not as it is written.', without_tiny
    ),
    Rule('A type is what its last name says, with or without its registry, under its new name.', short_types),
    Rule('A parameter that was renamed has its new name.', renamed_keys),
    Rule('None in a dict of parts switches an entry off, which is the same as not having it.', without_none),
    Rule(
        'What an OptimizeCallback says of a step (clip, schedule, scale_lr, base_batch) stands beside lr in the optimizers it '
        'names, in all of them if it names none; what is at its default is not written.',
        steps_in_optimizers,
    ),
    Rule(
        'Callbacks are a dict: each is named by its class, further ones of a class are numbered as they are written, and '
        'neither their own names nor the order of classes matter. No callbacks are the same as none given.',
        callbacks_by_class,
    ),
)


def normal(config: Config) -> Config:
    """A copy of ``config`` in the form that both sides share."""
    found = copy.deepcopy(config)
    for rule in RULES:
        rule.apply(found)
    return found


# differences that may remain


def is_bound(difference: Difference, context: Context) -> bool:
    return difference.new == ABSENT and any(fnmatch.fnmatch(difference.path, pattern) for pattern in BOUND)


def is_default(difference: Difference, context: Context) -> bool:
    for side, absent, written in (('new', difference.new, difference.old), ('old', difference.old, difference.new)):
        known = context.defaults.get(side, {}).get(difference.kind, {})
        if absent == ABSENT and difference.key in known:
            return same_value(known[difference.key], written)
    return False


def is_added(difference: Difference, context: Context) -> bool:
    return any(
        fnmatch.fnmatch(context.entry, entry)
        and difference.old == ABSENT
        and re.fullmatch(rf'{re.escape(path)}(\..*)?', difference.path)
        for entry, path, _ in ADDED
    )


@dataclasses.dataclass(frozen=True)
class Allowance:
    says: str
    applies: Callable[[Difference, Context], bool]


ALLOWED = (
    Allowance('The new side may leave out what follows from the model: the paths in BOUND.', is_bound),
    Allowance('An argument may be left out by one side that the other gives at the default of the first.', is_default),
    Allowance('The new side may have what ADDED names, with the entry and the reason.', is_added),
)


def remaining(differences: Iterator[Difference], context: Context) -> list[Difference]:
    return [found for found in differences if not any(allowed.applies(found, context) for allowed in ALLOWED)]


# comparing


def differences(old: Any, new: Any, path: str = '', kind: str = '') -> Iterator[Difference]:
    """Where two values differ, the deepest places. Parts of two types differ as a whole."""
    if isinstance(old, dict) and isinstance(new, dict) and old.get('type') == new.get('type'):
        name = old['type'] if isinstance(old.get('type'), str) else kind
        for key in dict.fromkeys([*old, *new]):
            below = f'{path}.{key}' if path else key
            if key not in old or key not in new:
                yield Difference(below, old.get(key, ABSENT), new.get(key, ABSENT), name)
            else:
                yield from differences(old[key], new[key], below, f'{name}.{key}')
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, other, f'{path}[{index}]', kind)
    elif not same_value(old, new):
        yield Difference(path, old, new, kind)


def same_value(old: Any, new: Any) -> bool:
    """Equal, and of the same types: 1, 1.0 and True are three values. The order of keys says nothing."""
    if isinstance(old, dict) and isinstance(new, dict):
        return set(old) == set(new) and all(same_value(old[key], new[key]) for key in old)
    return repr(old) == repr(new)


def built_differences(old: Mapping[str, Config], new: Mapping[str, Config]) -> Iterator[Difference]:
    """Between built parts: all of what is strict, and of what is loose what both sides have. Steps are no part any more."""
    for path in dict.fromkeys([*old['strict'], *new['strict']]):
        one, other = (side['strict'].get(path, ABSENT) for side in (old, new))
        one = RENAMED_TYPES.get(one, one)
        if one != other and not path.startswith('trainer.callbacks.OptimizeCallback'):
            yield Difference(path, one, other)
    for path, one in old['loose'].items():
        if path in new['loose'] and not same_value(one, new['loose'][path]):
            yield Difference(path, one, new['loose'][path])


# walking through a config


def dicts_of(value: Any) -> Iterator[Config]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from dicts_of(item)


def parts_of(value: Any) -> Iterator[Config]:
    return (found for found in dicts_of(value) if isinstance(found.get('type'), str))


def is_part(value: Any, kind: str) -> bool:
    return isinstance(value, dict) and value.get('type') == kind


def last_name(kind: str) -> str:
    return kind.rpartition('.')[2]


def snake(name: str) -> str:
    """``ImageGrid`` -> ``image_grid``, ``EMA`` -> ``ema``."""
    return re.sub('(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', '_', name).lower()
