"""Settings that follow from other parts. A class declares them in ``binds``, and the registry fills them in.

    binds = {'generator.codebook_size': 'tokenizer.codebook_size', 'metrics.*.codebook_size': 'model.counted_codes'}

A target is 'part.key', or 'parts.*.key' for each part of a dict or list. It applies to parts whose class has a parameter
``key``. A source is 'sibling.attribute', or a function of the owner's own settings, defaults included. Either can give a
``Bound`` in place of the plain value, or None to bind nothing.

A target that is absent from the config, or None there, is filled. A value in the config must equal the bound value; a list
equals a tuple, and a number equals a list of that one number. Parts that are built already are not changed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from vq.core.errors import ConfigError, UserError
from vq.core.parameters import parameters_of
from vq.core.registry import TreeMeta, elements_of, find_item, is_part, open_part, registry_for

MISSING: Any = object()  # the value of an attribute that a part does not have

Source = str | Callable[[Mapping[str, Any]], Any]


class Bound(NamedTuple):
    """A value that follows from other settings, with a test for other values that a config may give."""

    value: Any  # what is filled in
    accepts: Callable[[Any], bool] | None = None  # whether a config may give this value instead
    words: str = ''  # describes the value in errors


class Binding(NamedTuple):
    """One entry of ``binds``."""

    part: str  # the owner's parameter that holds the target
    each: bool  # that parameter holds several parts, and each is a target
    key: str
    source: Source

    @property
    def sibling(self) -> str:
        """'' if the source is a function."""
        return self.source.partition('.')[0] if isinstance(self.source, str) else ''

    @property
    def attribute(self) -> str:
        return self.source.partition('.')[2] if isinstance(self.source, str) else ''


class Target(NamedTuple):
    """A bound setting of a nested part."""

    binding: Binding
    place: Any  # key or index of the part among several; None: a single part
    part: Mapping[str, Any]
    path: str  # of the setting

    @property
    def given(self) -> bool:
        return self.binding.key in self.part


@functools.cache
def bindings_of(item: Any) -> tuple[Binding, ...]:
    """The entries of ``binds`` of a class."""
    found = []
    for target, source in getattr(item, 'binds', {}).items():
        part, *between, key = target.split('.')
        if between not in ([], ['*']):
            raise ConfigError(f"{item.__name__}.binds has the target '{target}'", "Write 'part.key' or 'parts.*.key'.")
        found.append(Binding(part, bool(between), key, source))
    return tuple(found)


def without_open(item: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """An owner's settings without bound settings that are None, so that these are filled like absent ones."""
    found = dict(values)
    for binding in bindings_of(item):
        for place, part in _places(binding, found.get(binding.part)).items():
            if is_part(part) and part.get(binding.key, 0) is None:
                kept = {key: value for key, value in part.items() if key != binding.key}
                found[binding.part] = _put(found[binding.part], place, kept)
    return found


def filled(item: Any, values: Mapping[str, Any]) -> set[str]:
    """The targets ('part.key', 'parts.*.key') that building will fill, as far as the config shows."""
    bindings = (binding for binding in bindings_of(item) if not binding.sibling or values.get(binding.sibling) is not None)
    return {f'{binding.part}.*.{binding.key}' if binding.each else f'{binding.part}.{binding.key}' for binding in bindings}


class Binder:
    """The bindings of one owner while its parts are built, in the order of its signature."""

    def __init__(self, root: TreeMeta, item: Any, path: str) -> None:
        self.root, self.item, self.path = root, item, path
        self.bindings = bindings_of(item)
        self._rest: list[Target] = []

    def fill(self, name: str, values: dict[str, Any]) -> None:
        """Before part ``name`` is built: fill its bound settings, and compare those that the config gives.

        The attributes of a sibling that is built later are read from a copy on the meta device: building the sibling itself
        early would change the order of random draws. Its config must be complete without ``wires``. No copy is built if the
        config gives all settings bound to this sibling; ``finish`` compares them.
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
        """After all parts are built: compare the settings bound to siblings that were built later."""
        for target in self._rest:
            bound = self._bound(target, values, None)
            if bound is not None:
                self._compare(target, bound)

    def _targets(self, binding: Binding, values: Mapping[str, Any]) -> Iterator[Target]:
        """The targets of a binding, among parts whose class has the parameter."""
        value, annotation = values[binding.part], parameters_of(self.item)[binding.part].annotation
        registry = registry_for(elements_of(annotation, value) if binding.each else annotation, self.root)
        for place, part in _places(binding, value).items():
            where = f'{self.path}.{binding.part}{_words(place)}'
            if registry is None or not is_part(part):
                continue
            if binding.key in parameters_of(find_item(registry, part['type'], where)[1]):
                yield Target(binding, place, part, f'{where}.{binding.key}')

    def _facts(self, targets: list[Target], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Sibling -> its attributes, for siblings that are built later and from which settings must be filled now."""
        found: dict[str, dict[str, Any]] = {}
        for sibling in dict.fromkeys(target.binding.sibling for target in targets if not target.given):
            if not is_part(values.get(sibling)):
                continue
            registry = registry_for(parameters_of(self.item)[sibling].annotation, self.root)
            if registry is not None:
                from vq.core.meta import facts_of  # imports torch, which checking a config does not need

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
        """Put a path in front of the errors of a source."""
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
        source = f'{self.path}.{sibling} has' if sibling else f'the other settings of {self.path} require'
        raise ConfigError(
            f'{target.path} is {given!r} in the config, and {source} {bound.words or repr(bound.value)}',
            'Leave the setting out of the config: it is filled in.',
        )


def check_bound(registry: TreeMeta, config: Mapping[str, Any], path: str) -> None:
    """Compare the bound settings that a part's config gives with its siblings, of which some are built. Builds no part."""
    opened = open_part(registry, config, path)
    binder = Binder(registry.root(), opened.item, path)
    for name in dict.fromkeys(binding.part for binding in binder.bindings):
        if name in opened.values:
            binder.fill(name, opened.values)


def attribute_of(part: Any, name: str) -> Any:
    """``'a.b'`` -> ``part.a.b``, or ``MISSING``. ``''`` is the part itself."""
    try:
        return functools.reduce(getattr, name.split('.') if name else (), part)
    except AttributeError:
        return MISSING


def same(given: Any, value: Any) -> bool:
    """Whether two settings are equal. A list equals a tuple, and a number equals a list of that one number."""
    one, other = _plain(given), _plain(value)
    if isinstance(one, tuple) != isinstance(other, tuple):
        one, other = (side if isinstance(side, tuple) else (side,) for side in (one, other))
    return bool(one == other)


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _places(binding: Binding, value: Any) -> dict[Any, Any]:
    """The parts in the owner's parameter that a binding applies to, by key or index; a single part has the key None."""
    if not binding.each:
        return {None: value}
    if isinstance(value, Mapping):
        return dict(value)
    return dict(enumerate(value)) if isinstance(value, list | tuple) else {}


def _put(value: Any, place: Any, part: Any) -> Any:
    """A copy of ``value`` with ``part`` at ``place``."""
    if place is None:
        return part
    if isinstance(value, Mapping):
        return {**value, place: part}
    return type(value)(part if index == place else item for index, item in enumerate(value))


def _words(place: Any) -> str:
    return '' if place is None else f'[{place}]' if isinstance(place, int) else f'.{place}'
