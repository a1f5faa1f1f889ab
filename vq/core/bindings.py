"""Settings that follow from other parts. A class declares them in ``binds``, and the registry fills them in.

    binds = {'generator.codebook_size': 'tokenizer.codebook_size', 'metrics.*.codebook_size': 'model.counted_codes'}

A target is 'part.key', or 'parts.*.key' for each part of a dict or list. It counts where the class of the part has a
parameter ``key``. A source is 'sibling.attribute', or a function of the owner's own settings, defaults included. Both may
give a ``Bound`` in place of the bare value, or None: nothing is bound then.

A target that is absent from the config, or None there, is filled. A value in the config must be equal: lists and tuples are
alike, and a number is equal to a list of that number alone. Parts that were given built are left as they are.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from vq.core.errors import ConfigError, UserError
from vq.core.parameters import parameters_of
from vq.core.registry import TreeMeta, elements_of, find_item, is_part, registry_for

MISSING: Any = object()  # the value of an attribute that a part does not have

Source = str | Callable[[Mapping[str, Any]], Any]


class Bound(NamedTuple):
    """A value that follows from other settings, where further values may stand in a config."""

    value: Any  # what is filled in
    accepts: Callable[[Any], bool] | None = None  # whether another value may stand in the config
    words: str = ''  # for errors, in place of the value


class Binding(NamedTuple):
    """One entry of ``binds``."""

    part: str  # the owner's parameter that holds the target
    each: bool  # that parameter holds several parts, and each of them is a target
    key: str
    source: Source

    @property
    def sibling(self) -> str:
        """'' where the source is a function."""
        return self.source.partition('.')[0] if isinstance(self.source, str) else ''

    @property
    def attribute(self) -> str:
        return self.source.partition('.')[2] if isinstance(self.source, str) else ''


class Target(NamedTuple):
    """A bound setting of a nested part."""

    binding: Binding
    place: Any  # of the part among several; None: there is one
    part: Mapping[str, Any]
    path: str  # of the setting

    @property
    def given(self) -> bool:
        return self.binding.key in self.part


@functools.cache
def bindings_of(item: Any) -> tuple[Binding, ...]:
    """What a class declares in ``binds``."""
    found = []
    for target, source in getattr(item, 'binds', {}).items():
        part, *between, key = target.split('.')
        if between not in ([], ['*']):
            raise ConfigError(f"{item.__name__}.binds has the target '{target}'", "Write 'part.key' or 'parts.*.key'.")
        found.append(Binding(part, bool(between), key, source))
    return tuple(found)


def without_open(item: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """An owner's settings without the bound ones that are None: these are filled as if they were absent."""
    found = dict(values)
    for binding in bindings_of(item):
        for place, part in _places(binding, found.get(binding.part)).items():
            if is_part(part) and part.get(binding.key, 0) is None:
                kept = {key: value for key, value in part.items() if key != binding.key}
                found[binding.part] = _put(found[binding.part], place, kept)
    return found


def filled(item: Any, values: Mapping[str, Any]) -> set[str]:
    """The targets ('part.key', 'parts.*.key') that building will fill, as far as a config can tell."""
    bindings = (binding for binding in bindings_of(item) if not binding.sibling or values.get(binding.sibling) is not None)
    return {f'{binding.part}.*.{binding.key}' if binding.each else f'{binding.part}.{binding.key}' for binding in bindings}


class Binder:
    """The bindings of one owner while its parts are built, in the order of its signature."""

    def __init__(self, root: TreeMeta, item: Any, path: str) -> None:
        self.root, self.item, self.path = root, item, path
        self.bindings = bindings_of(item)
        self._rest: list[Target] = []

    def fill(self, name: str, values: dict[str, Any]) -> None:
        """Before part ``name`` is built: fill its settings, and compare those that the config gives.

        A sibling that is built later is asked on the meta device, since building it early would change the order of random
        draws; its config must be complete without ``wires``. Where the config gives all that comes from such a sibling, nobody
        is asked: ``finish`` compares.
        """
        targets = [target for binding in self.bindings if binding.part == name for target in self._targets(binding, values)]
        facts = self._facts(targets, values)
        for target in targets:
            binding = target.binding
            if binding.sibling not in facts and is_part(values.get(binding.sibling)):
                self._rest.append(target)
                continue
            bound = self._bound(target, values, facts.get(binding.sibling))
            if bound is not None and target.given:
                self._compare(target, bound)
            elif bound is not None:
                current = dict(_places(binding, values[name])[target.place])
                values[name] = _put(values[name], target.place, {**current, binding.key: bound.value})

    def finish(self, values: Mapping[str, Any]) -> None:
        """Once all parts are built."""
        for target in self._rest:
            bound = self._bound(target, values, None)
            if bound is not None:
                self._compare(target, bound)

    def _targets(self, binding: Binding, values: Mapping[str, Any]) -> Iterator[Target]:
        """The settings that a binding names, where parts have them."""
        value, annotation = values[binding.part], parameters_of(self.item)[binding.part].annotation
        registry = registry_for(elements_of(annotation, value) if binding.each else annotation, self.root)
        for place, part in _places(binding, value).items():
            where = f'{self.path}.{binding.part}{_words(place)}'
            if registry is None or not is_part(part):
                continue
            if binding.key in parameters_of(find_item(registry, part['type'], where)[1]):
                yield Target(binding, place, part, f'{where}.{binding.key}')

    def _facts(self, targets: list[Target], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Of siblings that are built later and must be asked now: what they say."""
        found: dict[str, dict[str, Any]] = {}
        for sibling in dict.fromkeys(target.binding.sibling for target in targets if not target.given):
            if not is_part(values.get(sibling)):
                continue
            registry = registry_for(parameters_of(self.item)[sibling].annotation, self.root)
            if registry is not None:
                from vq.core.meta import facts_of  # imports torch, which judging a config does not need

                names = dict.fromkeys(other.binding.attribute for other in targets if other.binding.sibling == sibling)
                where = f'{self.path}.{sibling}'
                with self._saying(where):
                    found[sibling] = facts_of(registry, values[sibling], tuple(names), where)
        return found

    def _bound(self, target: Target, values: Mapping[str, Any], facts: Mapping[str, Any] | None) -> Bound | None:
        binding = target.binding
        with self._saying(target.path):
            if not isinstance(binding.source, str):
                defaults = {p.name: p.default for p in parameters_of(self.item).values() if not p.required}
                found = binding.source({**defaults, **values})
            elif facts is not None:
                found = facts[binding.attribute]
            else:
                beside = values.get(binding.sibling)
                found = None if beside is None else attribute_of(beside, binding.attribute)
        if found is MISSING and not target.given:
            source = f'{self.path}.{binding.sibling}'
            raise ConfigError(
                f"{target.path} is taken from '{binding.attribute}' of {source}, which has no such attribute",
                f'Add {binding.key}=... to the config.',
            )
        if found is None or found is MISSING:
            return None
        return found if isinstance(found, Bound) else Bound(found)

    @contextlib.contextmanager
    def _saying(self, where: str) -> Iterator[None]:
        """Errors of sources open with a path."""
        try:
            yield
        except UserError as error:
            if error.message.startswith(f'{self.path}.'):
                raise
            raise type(error)(f'{where}: {error.message}', error.hint) from error

    def _compare(self, target: Target, bound: Bound) -> None:
        given = target.part[target.binding.key]
        if same(given, bound.value) or (bound.accepts is not None and bound.accepts(given)):
            return
        sibling = target.binding.sibling
        source = f'{self.path}.{sibling} has' if sibling else f'the other settings of {self.path} ask for'
        raise ConfigError(
            f'{target.path} is {given!r} in the config, and {source} {bound.words or repr(bound.value)}',
            'Leave it out: it follows from the other.',
        )


def attribute_of(part: Any, name: str) -> Any:
    """``'a.b'`` -> ``part.a.b``, or ``MISSING``. ``''`` is the part itself."""
    try:
        return functools.reduce(getattr, name.split('.') if name else (), part)
    except AttributeError:
        return MISSING


def same(given: Any, value: Any) -> bool:
    """Whether two settings are equal, lists and tuples alike, a number alike to a list of that number alone."""
    one, other = _plain(given), _plain(value)
    if isinstance(one, tuple) != isinstance(other, tuple):
        one, other = (side if isinstance(side, tuple) else (side,) for side in (one, other))
    return bool(one == other)


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _places(binding: Binding, value: Any) -> dict[Any, Any]:
    """What a binding may fill, by its place in the value of the owner's parameter."""
    if not binding.each:
        return {None: value}
    if isinstance(value, Mapping):
        return dict(value)
    return dict(enumerate(value)) if isinstance(value, list | tuple) else {}


def _put(value: Any, place: Any, part: Any) -> Any:
    """A copy of ``value`` with another part at a place."""
    if place is None:
        return part
    if isinstance(value, Mapping):
        return {**value, place: part}
    return type(value)(part if index == place else item for index, item in enumerate(value))


def _words(place: Any) -> str:
    return '' if place is None else f'[{place}]' if isinstance(place, int) else f'.{place}'
