"""The rules of ``same.py``: differences between an old and a new checkout that do not change what is computed.

``RULES`` normalize a composed config of either side. ``ALLOWED`` are differences that are accepted. Each rule is a small
function with a sentence that describes what counts as equal. Equal configs stay equal under all rules. Different configs
only count as equal if a rule here says so.
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

# tables of renamed items, of values that follow from the model, and of intended additions

RENAMED_TYPES: dict[str, str] = {}  # old name of a registered item -> new name
RENAMED_KEYS: dict[tuple[str, str], str] = {}  # (new name of an item, old name of its parameter) -> new name
OPTIONAL_PARTS = ('callbacks', 'metrics', 'losses', 'penalties', 'optimizers')  # dicts of parts: None switches an entry off
AUTO, AUTOMATIC = 'AutoStrategy', ('BaseStrategy', 'DDPStrategy')  # the default strategy, and those before it
BOUND = (  # paths of values that follow from the model when it is built
    'validator.metrics.*.codebook_size',
    'validator.metrics.*.codebook_sizes',
    '*.model.generator.token_shape',
    '*.model.generator.codebook_size',
    '*.model.generator.codebook_sizes',
    '*.model.generator.cells',
    '*.model.generator.codebooks',
    '*.model.generator.network.vocabulary',
    '*.model.generator.network.length',
    '*.model.generator.network.grid',
    '*.model.generator.network.prefix',
)
EMPTY_PARTS = (  # (name, class): statistics of latents until they are computed; losses of generators, of which none ships
    ('statistics', 'LatentStatistics'),
    ('losses', 'ModuleDict'),
)
ADDED = (  # (entry, path that only the new side has, reason)
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
    ('*', 'trainer.callbacks.checkpoint.keep_state', 'older checkpoints of photographs keep weights only'),
    ('*', 'trainer.callbacks.CheckpointCallback.keep_state', 'the same, built'),
    ('*', 'trainer.dataset.held_out', 'it means nothing with split folders, without which recipes could not be used'),
    ('*', 'validator.dataset.held_out', 'the same'),
    ('*', 'trainer.dataloader.bad_image_cap', 'the limit of bad images is an option, 0.2 by default'),
    ('*', 'validator.dataloader.bad_image_cap', 'the same'),
    ('*', 'trainer.callbacks.backends', 'TensorBoard is a default callback'),
    ('*', 'trainer.callbacks.BackendsCallback', 'the same, built'),
)
CHANGED = (  # (path, old value, new value, reason)
    ('trainer.callbacks.checkpoint.keep_last', 3, 12, 'the published command validates the last 12'),
    ('trainer.callbacks.CheckpointCallback.retention.keep_last', 3, 12, 'the same, built'),
    ('trainer.dataloader.bad_image_cap', 0.001, 0.2, 'more bad images are allowed, if any are skipped'),
    ('validator.dataloader.bad_image_cap', 0.001, 0.2, 'the same'),
    ('trainer.callbacks.backends.backends', [{'type': 'TensorboardVisBackend'}], ABSENT, 'TensorBoard is the default'),
    ('trainer.callbacks.backends.backends', [{'type': 'LocalVisBackend'}], ABSENT, 'tiny forms log to the default, too'),
    ('trainer.callbacks.BackendsCallback.settings.0.type', 'TensorboardVisBackend', 'TensorBoard', 'the default, built'),
    ('trainer.callbacks.BackendsCallback.settings.0.type', 'LocalVisBackend', 'TensorBoard', 'the same, in tiny forms'),
    ('trainer.callbacks.TokensCallback.settings.bad_image_cap', 0.001, 0.2, 'it reads images as the loader does'),
)


@dataclasses.dataclass(frozen=True)
class Difference:
    """``old`` and ``new`` value at ``path``. ``kind``: the item with this argument, or ``Item.argument`` within a record."""

    path: str
    old: Any
    new: Any
    kind: str = ''

    @property
    def key(self) -> str:
        return self.path.rpartition('.')[2]


@dataclasses.dataclass(frozen=True)
class Context:
    """The entry of a difference, the default arguments of each side, the options of the case, and whether its form is tiny."""

    entry: str
    defaults: Mapping[str, Mapping[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)  # side -> item -> values
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tiny: bool = False


# rules that normalize a config


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
            if chosen:  # otherwise it names an unknown optimizer: it stays, and is a difference
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
            if part is None:  # in place of a former OptimizeCallback
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
    Rule('The overrides in `tiny` are not compared themselves: the composed tiny form is compared.', without_tiny),
    Rule('A type is compared by its last name, with or without its registry; renamed types have their new name.', short_types),
    Rule('A renamed parameter is compared under its new name.', renamed_keys),
    Rule('None in a dict of parts switches an entry off, which equals a missing entry.', without_none),
    Rule(
        'Step settings of an OptimizeCallback (clip, schedule, scale_lr, base_batch) are moved into the optimizers that it '
        'names, or into all optimizers if it names none; default values are removed.',
        steps_in_optimizers,
    ),
    Rule(
        'Callbacks are a dict. Each is named by its class, and further callbacks of a class are numbered in order; their own '
        'names and the order of classes do not matter. An empty dict equals a missing one.',
        callbacks_by_class,
    ),
)


def normal(config: Config) -> Config:
    """A normalized copy of ``config``."""
    found = copy.deepcopy(config)
    for rule in RULES:
        rule.apply(found)
    return found


# accepted differences


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


def is_empty_part(difference: Difference, context: Context) -> bool:
    name = difference.path.rpartition('.')[2]
    return difference.old == ABSENT and (name, difference.new) in EMPTY_PARTS


def is_automatic(difference: Difference, context: Context) -> bool:
    old, new = difference.old, difference.new
    if isinstance(old, str):  # the class of a built part
        return difference.path.endswith('.strategy') and old in AUTOMATIC and new == AUTO
    if not (difference.path.endswith('.strategy') and is_one_of(old, AUTOMATIC) and is_part(new, AUTO)):
        return False
    settings, before = settings_of(new, context), settings_of(old, context)
    became = settings.pop('became', None)
    return became == 'base' and same_value(settings, said(context) if context.tiny and not before else before)


def is_said(difference: Difference, context: Context) -> bool:
    """Whether the tiny form of the old side has one device, and that of the new side the strategy of an option."""
    if not (context.tiny and difference.path.endswith('.strategy') and same_value(difference.old, {'type': 'BaseStrategy'})):
        return False
    wanted, new = f'{context.options.get("strategy")}strategy', difference.new
    return isinstance(new, dict) and new['type'].lower() == wanted and same_value(settings_of(new, context), said(context))


def is_per_rank(difference: Difference, context: Context) -> bool:
    total = difference.path.endswith('.dataloader.batch_size_in_total')
    return context.tiny and total and difference.old is True and difference.new is False


def settings_of(strategy: Config, context: Context) -> Config:
    """The settings of a strategy that are not defaults."""
    known = context.defaults.get('new', {}).get(AUTO, {})
    default = [key for key, value in strategy.items() if key in known and same_value(value, known[key])]
    return {key: value for key, value in strategy.items() if key not in (*default, 'type')}


def said(context: Context) -> Config:
    """The settings of a strategy that the options of the case set."""
    return {name: context.options[name] for name in ('precision', 'accumulate') if name in context.options}


def is_changed(difference: Difference, context: Context) -> bool:
    return (difference.path, difference.old, difference.new) in [change[:3] for change in CHANGED]


@dataclasses.dataclass(frozen=True)
class Allowance:
    says: str
    applies: Callable[[Difference, Context], bool]


ALLOWED = (
    Allowance('The new side may leave out values that follow from the model: the paths in BOUND.', is_bound),
    Allowance('One side may leave out an argument if the other side sets it to the default of the first side.', is_default),
    Allowance('The new side may have the additions in ADDED, each with its entry and reason.', is_added),
    Allowance('Built models of the new side may have the parts in EMPTY_PARTS, which hold nothing by default.', is_empty_part),
    Allowance('A default strategy may be an AutoStrategy that became base, with the settings of the old side.', is_automatic),
    Allowance('The tiny form keeps the strategy and its settings that options set; the old side had one device.', is_said),
    Allowance('Batch sizes of the tiny form are per rank on the new side, which is the same for one rank.', is_per_rank),
    Allowance('The new side may have the changed values in CHANGED, each with its reason.', is_changed),
)


def remaining(differences: Iterator[Difference], context: Context) -> list[Difference]:
    return [found for found in differences if not any(allowed.applies(found, context) for allowed in ALLOWED)]


# comparing


def differences(old: Any, new: Any, path: str = '', kind: str = '') -> Iterator[Difference]:
    """The innermost differences of two values. Parts of different types differ as a whole."""
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
    """Whether values and types are equal: 1, 1.0 and True differ. The order of keys does not matter."""
    if isinstance(old, dict) and isinstance(new, dict):
        return set(old) == set(new) and all(same_value(old[key], new[key]) for key in old)
    return repr(old) == repr(new)


def built_differences(old: Mapping[str, Config], new: Mapping[str, Config]) -> Iterator[Difference]:
    """Differences of built parts: all strict entries, and loose entries of both sides. OptimizeCallbacks are ignored."""
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


def is_one_of(value: Any, kinds: tuple[str, ...]) -> bool:
    return any(is_part(value, kind) for kind in kinds)


def is_part(value: Any, kind: str) -> bool:
    return isinstance(value, dict) and value.get('type') == kind


def last_name(kind: str) -> str:
    return kind.rpartition('.')[2]


def snake(name: str) -> str:
    """``ImageGrid`` -> ``image_grid``, ``EMA`` -> ``ema``."""
    return re.sub('(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', '_', name).lower()
