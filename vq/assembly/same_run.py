"""Whether a command continues the same run: its settings compared with those of the checkpoint that it resumes.

Settings that may change freely do not change what the run computes: callbacks, the validator, a later end, workers, device,
and strategy and ranks as long as a step has as many samples. Everything else is a difference: seed, model, losses, optimizers,
data, samples per step, precision. Both configs are completed with the defaults of the parts first, and values that follow from
other parts may be left out of either, so a run of an earlier version has no differences by its spelling alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vq.assembly.callbacks import settle_callbacks
from vq.core.bindings import filled as bound
from vq.core.config import PyConfig
from vq.core.errors import UserError
from vq.core.parameters import Parameter, parameters_of
from vq.core.registry import TreeMeta, open_part, slot_of
from vq.core.trust import Untrusted
from vq.io.runs import Run
from vq.registries import VQRunnerRegistry, VQStrategyRegistry

FOLLOWS: Any = object()  # a value that follows from another part: equal to every value
ABSENT = '(absent)'
LENGTHS = ('iters', 'epochs', 'samples')
LOADING = ('num_workers', 'prefetch', 'pin_memory', 'batch_size', 'batch_size_in_total', 'bad_images', 'bad_image_cap')
COMPUTING = ('precision', 'clip')  # what matters of a strategy, besides its number of samples


class Difference(NamedTuple):
    path: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f'{self.path}: {shown(self.old)} -> {shown(self.new)}'


def find_differences(checkpoint: Path, config: PyConfig, seed: int, trusted: bool = False) -> list[Difference] | None:
    """The settings that differ from those the checkpoint was written with; None if that config cannot be read."""
    try:
        meta = json.loads((checkpoint / 'meta.json').read_bytes())
        before = PyConfig(Run(str(checkpoint), checkpoint, checkpoint, trusted=trusted).config)
        settle_callbacks(before)
        old = completed(VQRunnerRegistry, before['trainer'], 'trainer')
    except (Untrusted, UserError, OSError, ValueError, KeyError):  # damage is reported when the checkpoint is loaded
        return None
    new = completed(VQRunnerRegistry, config['trainer'], 'trainer')
    known = meta.get('seed')
    found = [] if known in (None, seed) else [Difference('seed', known, seed)]
    found += _samples(old, new, int(meta.get('world_size') or 1))
    found += [
        Difference(f'trainer.{name}', old.get(name), new.get(name))
        for name in LENGTHS
        if not _as_long(old.get(name), new.get(name))
    ]
    for side in (old, new):
        for name in ('callbacks', *LENGTHS):
            side.pop(name, None)
        for name in LOADING:
            _dict(side, 'dataloader').pop(name, None)
        side['strategy'] = {name: value for name, value in _dict(side, 'strategy').items() if name in COMPUTING}
    return [*found, *differing(old, new, 'trainer')]


def table(differences: list[Difference]) -> str:
    """One line per difference."""
    width = max(len(difference.path) for difference in differences) + 1
    rows = [f'  {f"{one.path}:":{width}} {shown(one.old)} -> {shown(one.new)}' for one in differences]
    return '\n'.join(rows)


def shown(value: Any) -> str:
    if value is FOLLOWS:
        return '(follows)'
    if isinstance(value, Mapping) and 'type' in value:
        return f'{value["type"]}(...)'
    text = value if value == ABSENT else repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def _samples(old: Mapping[str, Any], new: Mapping[str, Any], ranks: int) -> list[Difference]:
    """The samples of a step, over all ranks and micro-batches."""
    sides = []
    for side, world in ((old, ranks), (new, _ranks(_dict(new, 'strategy').get('type')))):
        loader = _dict(side, 'dataloader')
        batch, micro = loader.get('batch_size'), _dict(side, 'strategy').get('accumulate') or 1
        world = 1 if loader.get('batch_size_in_total') else world
        sides.append((batch, world, micro))
    products = [None if batch is None else batch * world * micro for batch, world, micro in sides]
    if products[0] == products[1]:
        return []
    text = [f'{product} = {batch} x {world} x {micro}' for product, (batch, world, micro) in zip(products, sides, strict=True)]
    return [Difference('samples per step (batch_size x ranks x accumulate)', Words(text[0]), Words(text[1]))]


def _ranks(strategy: Any) -> int:
    """The ranks that a strategy will use: other strategies than those of processes drive all devices from one."""
    from vq.strategies.ddp import DDPStrategy

    try:
        kind = VQStrategyRegistry.parse(strategy)[1]
    except UserError:
        kind = None
    joined = isinstance(kind, type) and issubclass(kind, DDPStrategy)
    return int(os.environ.get('WORLD_SIZE') or 1) if joined else 1


class Words(str):
    """Text that is shown without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _as_long(old: Any, new: Any) -> bool:
    return old == new or (isinstance(old, int | float) and isinstance(new, int | float) and new >= old)


def _dict(side: Any, name: str) -> dict[str, Any]:
    found = side.get(name)
    return found if isinstance(found, dict) else {}


def _last(kind: Any) -> str:
    return str(kind).rpartition('.')[2]


# the defaults of parts


def completed(registry: TreeMeta, part: Any, path: str, beside: type | None = None) -> Any:
    """A part of a config as nested dicts, with the defaults of every part that it names."""
    try:
        opened = open_part(registry, part, path, beside)
    except UserError:  # a type that is not known any more
        return _bare(part)
    # a class declares ``as_meant`` if several settings of it mean the same
    values = getattr(opened.item, 'as_meant', dict)(opened.values)
    wires = {target for target, source in getattr(opened.item, 'wires', {}).items() if values.get(source.partition('.')[0])}
    filled = wires | bound(opened.item, values)
    root = registry.root()
    given = _complete(root, opened.parameters, values, path, filled)
    return {'type': _last(part['type']), **given, **_complete(root, opened.beside, opened.shared, path, ())}


def _complete(
    root: TreeMeta, parameters: Mapping[str, Parameter], given: Mapping[str, Any], path: str, filled: Collection[str]
) -> dict[str, Any]:
    found = {name: _bare(value) for name, value in given.items() if name not in parameters}
    for name, parameter in parameters.items():
        value = given.get(name, FOLLOWS if parameter.required else parameter.default)
        inside = [target.partition('.')[2] for target in filled if target.partition('.')[0] == name]
        found[name] = _complete_value(root, value, parameter.annotation, f'{path}.{name}', inside)
    return found


def _complete_value(root: TreeMeta, value: Any, annotation: Any, path: str, filled: Collection[str] = ()) -> Any:
    slot = slot_of(annotation, value, root)
    if slot.registry is not None:
        part = completed(slot.registry, value, path, slot.beside)
        missing = [name for name in filled if '.' not in name and value.get(name) is None]
        return {**part, **dict.fromkeys(missing, FOLLOWS)} if isinstance(part, dict) else part
    if slot.record is not None:
        return _complete(root, parameters_of(slot.record), value, path, ())
    if slot.element is not None:
        each = [name.removeprefix('*.') for name in filled if name.startswith('*.')]
        if isinstance(value, Mapping):
            kept = {key: item for key, item in value.items() if not (slot.parts and item is None)}
            return {key: _complete_value(root, item, slot.element, f'{path}.{key}', each) for key, item in kept.items()}
        return [_complete_value(root, item, slot.element, f'{path}[{place}]', each) for place, item in enumerate(value)]
    return _bare(value)


def _bare(value: Any) -> Any:
    """Plain containers; a tuple is a list."""
    if isinstance(value, Mapping):
        return {key: _bare(item) for key, item in value.items()}
    return [_bare(item) for item in value] if isinstance(value, list | tuple) else value


# the comparison


def differing(old: Any, new: Any, path: str) -> Iterator[Difference]:
    """The innermost values that differ. A part of another type is one difference."""
    if old is FOLLOWS or new is FOLLOWS:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        if old.get('type') != new.get('type'):
            yield Difference(f'{path}.type', old.get('type', ABSENT), new.get('type', ABSENT))
            return
        for key in [*old, *(key for key in new if key not in old)]:
            one, other = old.get(key, ABSENT), new.get(key, ABSENT)
            if key == 'weights' and all(value is None or isinstance(value, str) for value in (one, other)):
                continue  # where the file of a frozen part is; its content is compared when the checkpoint is loaded
            yield from differing(one, other, f'{path}.{key}')
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differing(one, other, f'{path}[{place}]')
    elif old != new or isinstance(old, bool) != isinstance(new, bool):
        yield Difference(path, old, new)
