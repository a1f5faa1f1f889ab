"""Registries: names for parts, and building parts from configs.

Todd's registries with three things of ours: a dotted name resolves from anywhere in the tree (todd looks downwards
only), a registry imports its own package on the first miss, and building is driven by the constructor's annotations:
a parameter annotated with an interface (or a list, dict or optional of it) takes a nested ``dict(type=...)``.
"""

from __future__ import annotations

import copy
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, get_args, get_origin

from vq.core.door import Config, RegistryMeta, ToddRegistry
from vq.core.errors import ConfigError, UserError, listing, nearest
from vq.core.parameters import alternatives, dataclass_in, parameters_of, strip, takes_any_keyword

_subclasses: Any = type.__subclasses__


def is_registry(value: Any) -> bool:
    """``isinstance(value, TreeMeta)``, which todd's metaclass cannot answer: it is an ABC that overrides __subclasses__."""
    return TreeMeta in type(value).__mro__


class TreeMeta(RegistryMeta):  # type: ignore[misc]
    """The metaclass of every registry of this toolkit."""

    package: str
    interface: str

    def __subclasses__(cls: Any = ...) -> Any:
        # ABCs ask a class for its subclasses, and a metaclass is asked as a plain class: without an argument
        return _subclasses(TreeMeta if cls is ... else cls)

    def parse(cls, key: str) -> tuple[TreeMeta, Any]:
        """Find an item: here, below here, or, for a dotted name, anywhere in the tree."""
        *parents, name = key.split('.')
        start: TreeMeta = cls
        if parents:
            start = cls.locate(parents)
        found = _below(start, name)
        if not found:
            for registry in start.tree():
                registry.load_package()
            found = _below(start, name)
        if len(found) == 1:
            return found[0], found[0].data[name]
        if found:
            raise ConfigError(
                f"'{key}' is ambiguous in {cls.__name__}: {listing(f'{r.__name__}.{name}' for r in found)}",
                'Write one of the dotted names.',
            )
        raise ConfigError(cls._unknown(key, name), f'{start.__name__} has: {listing(start.names()) or "nothing"}.')

    def locate(cls, parents: list[str]) -> TreeMeta:
        """``['VQITRunnerRegistry']`` -> that registry, wherever it stands; further names go downwards from it."""
        node: TreeMeta | None = None
        for name in parents:
            within = list(cls.root().tree()) if node is None else list(node.tree())[1:]
            node = next((registry for registry in within if registry.__name__ == name), None)
            if node is None:
                known = [registry.__name__ for registry in cls.root().tree()]
                raise ConfigError(f"there is no registry '{name}'{nearest(name, known)}", f'There are: {listing(known, 40)}.')
        assert node is not None
        return node

    def root(cls) -> TreeMeta:
        found: Any = next(base for base in reversed(cls.__mro__) if is_registry(base) and base is not Registry)
        registry: TreeMeta = found
        return registry

    def tree(cls) -> Iterator[TreeMeta]:
        """This registry, then all below it."""
        yield cls
        children: list[TreeMeta] = _subclasses(cls)
        for child in children:
            yield from child.tree()

    def names(cls) -> list[str]:
        """All item names here and below, packages imported."""
        for registry in cls.tree():
            registry.load_package()
        return [name for registry in cls.tree() for name in registry.data]

    def load_package(cls) -> None:
        """Import the modules that register into this registry; once."""
        package = cls.__dict__.get('package')
        if package is None or cls.__dict__.get('_loaded', False):
            return
        type.__setattr__(cls, '_loaded', True)
        module = importlib.import_module(package)
        for info in pkgutil.walk_packages(getattr(module, '__path__', []), f'{package}.'):
            if not info.name.endswith('__main__'):
                importlib.import_module(info.name)

    def _unknown(cls, key: str, name: str) -> str:
        cls.root().names()  # imports every package
        elsewhere = [registry.__name__ for registry in cls.root().tree() if name in registry.data]
        if elsewhere:
            return f"'{key}' is a {elsewhere[0]} item, and a {cls.__name__} item is needed here"
        return f"unknown type '{key}' in {cls.__name__}{nearest(name, cls.names())}"

    def build(cls, config: Any, path: str = '', **defaults: Any) -> Any:
        """Build the part a config describes. The config is copied, never changed."""
        return build_part(cls, {**defaults, **copy.deepcopy(config)}, path or cls.__name__)


class Registry(ToddRegistry, metaclass=TreeMeta):  # type: ignore[misc,valid-type]
    """Base of the tree; the tree itself stands in ``vq/registries.py``."""

    interface: ClassVar[str]


def _below(start: TreeMeta, name: str) -> list[TreeMeta]:
    return [registry for registry in start.tree() if name in registry.data]


@functools.cache
def _interfaces(root: TreeMeta) -> dict[type, TreeMeta]:
    table: dict[type, TreeMeta] = {}
    for registry in root.tree():
        target = registry.__dict__.get('interface')
        if target:
            module, _, name = target.partition(':')
            table[getattr(importlib.import_module(module), name)] = registry
    return table


def registry_for(annotation: Any, root: TreeMeta) -> TreeMeta | None:
    """The registry whose parts an annotation asks for, if it asks for one part."""
    if get_origin(annotation) is Annotated:
        marked: list[TreeMeta] = [extra for extra in get_args(annotation)[1:] if is_registry(extra)]
        if marked:
            return marked[0]
    for kind in alternatives(annotation):
        if isinstance(kind, type):
            for interface, registry in _interfaces(root).items():
                if kind is interface:
                    return registry
        elif get_origin(kind) is Annotated and (found := registry_for(kind, root)):
            return found
    return None


def elements_of(annotation: Any) -> Any | None:
    """``list[X]``, ``tuple[X, ...]`` or ``dict[str, X]`` -> ``X``."""
    for kind in alternatives(annotation):
        origin, arguments = get_origin(strip(kind)), get_args(strip(kind))
        if origin in (list, tuple) and arguments:
            return arguments[0]
        if isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
            return arguments[1]
    return None


def is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and 'type' in value


def build_part(registry: TreeMeta, config: Mapping[str, Any], path: str) -> Any:
    """Build ``config`` from ``registry``; nested parts first, in signature order, with the item's ``wires`` applied."""
    values = dict(config)
    kind = values.pop('type', None)
    if kind is None:
        raise ConfigError(f"{path}: 'type' is missing", f'Add type=...; {registry.__name__} has: {listing(registry.names())}.')
    try:
        owner, item = registry.parse(kind) if isinstance(kind, str) else (registry, kind)
    except ConfigError as error:
        raise ConfigError(f'{path}: {error.message}', error.hint) from error
    hook = getattr(item, 'build_pre_hook', None)
    if hook is not None:  # todd's convention, for items brought from outside
        values = dict(hook(Config(values), owner, item))
    parameters = parameters_of(item)
    unknown = [key for key in values if key not in parameters]
    if unknown and not takes_any_keyword(item):
        raise ConfigError(
            f"{path}: {kind} has no parameter '{unknown[0]}'{nearest(unknown[0], parameters)}",
            f'It takes: {listing(parameters) or "nothing"}.',
        )
    wires: dict[str, str] = getattr(item, 'wires', {})
    for name, parameter in parameters.items():
        if name in values:
            _wire(name, values, wires)
            values[name] = build_value(registry.root(), values[name], parameter.annotation, f'{path}.{name}')
    try:
        return item(**values) if isinstance(item, type) else functools.partial(item, **values)
    except UserError as error:
        if error.message.startswith(path.split('.')[0] + '.'):
            raise
        raise type(error)(f'{path}: {error.message}', error.hint) from error
    except (TypeError, ValueError) as error:
        missing = [p.name for p in parameters.values() if p.required and p.name not in values]
        if missing:
            raise ConfigError(f'{path}: {kind} needs {listing(missing)}', f'Add {missing[0]}=... to this part.') from error
        raise ConfigError(
            f'{path}: {kind} cannot be built: {error}', 'See the parameters it was given in the config.'
        ) from error


def _wire(name: str, values: dict[str, Any], wires: dict[str, str]) -> None:
    """Fill what part ``name`` takes from a sibling built before it; a value in the config wins."""
    for target, source in wires.items():
        part, _, key = target.partition('.')
        if part != name or not is_part(values[name]) or key in values[name]:
            continue
        sibling, _, attribute = source.partition('.')
        if values.get(sibling) is not None:
            given = functools.reduce(getattr, attribute.split('.'), values[sibling]) if attribute else values[sibling]
            values[name] = {**values[name], key: given}


def build_value(root: TreeMeta, value: Any, annotation: Any, path: str) -> Any:
    """Turn one config value into what its parameter is annotated with."""
    registry = registry_for(annotation, root)
    if registry is not None and is_part(value):
        return build_part(registry, value, path)
    record = dataclass_in(annotation)
    if record is not None and isinstance(value, Mapping):
        return _build_record(root, record, value, path)
    element = elements_of(annotation)
    if element is not None and isinstance(value, list | tuple):
        built = [
            build_value(root, item, element, f'{path}[{index}]')
            for index, item in enumerate(value)
            if item is not None or registry_for(element, root) is None
        ]
        return tuple(built) if isinstance(value, tuple) else built
    if element is not None and isinstance(value, Mapping):
        parts = registry_for(element, root) is not None
        return {
            key: build_value(root, item, element, f'{path}.{key}')
            for key, item in value.items()
            if not (parts and item is None)
        }  # None switches an inherited entry off
    return value


def _build_record(root: TreeMeta, record: Callable[..., Any], value: Mapping[str, Any], path: str) -> Any:
    parameters = parameters_of(record)
    for key in value:
        if key not in parameters:
            raise ConfigError(
                f"{path}: there is no '{key}'{nearest(str(key), parameters)}", f'It takes: {listing(parameters)}.'
            )
    return record(**{key: build_value(root, item, parameters[key].annotation, f'{path}.{key}') for key, item in value.items()})
