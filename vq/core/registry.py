"""Registries: names for parts, and building parts from configs.

Todd's registries with three additions: a dotted name resolves from anywhere in the tree (todd searches descendants
only), a registry imports the modules of its own package that register a name it does not have yet, and building is driven by
the constructor's annotations: a parameter annotated with an interface (or a list, dict or optional of it) takes a nested
``dict(type=...)``.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, get_args, get_origin

from vq.core import type_changes
from vq.core.config import plain
from vq.core.door import Config, RegistryMeta, ToddRegistry
from vq.core.errors import ConfigError, UserError, listing, nearest
from vq.core.parameters import Parameter, alternatives, dataclass_in, parameters_of, strip, takes_any_keyword
from vq.core.registering import registering

_subclasses: Any = type.__subclasses__
# caches: read thousands of times for one config, cleared whenever a registry is created
_trees: dict[int, tuple[TreeMeta, ...]] = {}  # id of a registry -> itself and its descendants
_owners: dict[int, dict[str, list[TreeMeta]]] = {}  # id of a root -> name of an interface -> its registries


def is_registry(value: Any) -> bool:
    """``isinstance(value, TreeMeta)``, which does not work: todd's metaclass is an ABC that overrides __subclasses__."""
    return TreeMeta in type(value).__mro__


class TreeMeta(RegistryMeta):  # type: ignore[misc]
    """The metaclass of every registry of this toolkit."""

    package: str
    interface: str
    retired: Mapping[str, str]
    changes = 0  # counts changes to all registries; caches of facts about parts have it in their keys

    def __init__(cls, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        TreeMeta.changes += 1
        _trees.clear()
        _owners.clear()

    def __subclasses__(cls: Any = ...) -> Any:
        # abc also calls TreeMeta.__subclasses__() on the metaclass itself: without an argument
        return _subclasses(TreeMeta if cls is ... else cls)

    def parse(cls, key: str) -> tuple[TreeMeta, Any]:
        """Find an item that this registry accepts: in itself, in a descendant or, for a dotted name, anywhere in the tree."""
        *parents, name = key.split('.')
        start: TreeMeta = cls.locate(parents) if parents else cls
        found = _below(start, name)
        if not found:
            for registry in start.tree():
                registry.load_item(name)
            found = _below(start, name)
        if not found:
            for registry in start.tree():
                registry.load_package()
            found = _below(start, name)
        accepted = [registry for registry in found if cls.accepts(registry, registry.data[name])]
        if len(accepted) == 1:
            return accepted[0], accepted[0].data[name]
        if accepted:
            raise ConfigError(
                f"'{key}' is ambiguous in {cls.__name__}: {listing(f'{r.__name__}.{name}' for r in accepted)}",
                'Write one of the dotted names.',
            )
        if found:
            raise ConfigError(cls._other_kind(key, found[0]), f'{cls.__name__} has: {listing(cls.choices()) or "nothing"}.')
        if name in start.retired:
            raise ConfigError(f"there is no type '{key}' any more", start.retired[name])
        raise ConfigError(start._unknown(key, name), f'{start.__name__} has: {listing(start.choices()) or "nothing"}.')

    def accepts(cls, owner: TreeMeta, item: Any) -> bool:
        """True if this registry may build ``item``: always for its own items; for items of child registries only if they
        subclass the interface (the child registry of encoders is below that of tokenizers).
        """
        if owner is cls:
            return True
        wanted = cls.interface_class()
        if wanted is None:
            return cls in owner.__mro__
        kind = item if isinstance(item, type) else owner.interface_class()
        return kind is not None and issubclass(kind, wanted)

    def interface_class(cls) -> type | None:
        """The class that ``interface`` names; a registry without one inherits that of its parent."""
        target: str | None = getattr(cls, 'interface', None)
        return _import_class(target) if target else None

    def __setitem__(cls, key: str, item: Any) -> None:
        registry, name = cls._parse(key)
        if name in registry.data:
            raise ConfigError(
                f"{registry.__name__} has an item '{name}' already: {registry.data[name]!r}",
                'Register yours under another name, or with register_(force=True) in its place.',
            )
        super().__setitem__(key, item)
        TreeMeta.changes += 1

    def __delitem__(cls, key: str) -> None:
        super().__delitem__(key)
        TreeMeta.changes += 1

    def locate(cls, parents: list[str]) -> TreeMeta:
        """``['VQITRunnerRegistry']`` -> that registry, anywhere in the tree; each further name: a descendant of the last."""
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
        """This registry, then its descendants, each once."""
        if id(cls) not in _trees:
            found: dict[TreeMeta, None] = {cls: None}
            children: list[TreeMeta] = _subclasses(cls)
            for child in children:
                found.update(dict.fromkeys(child.tree()))
            _trees[id(cls)] = tuple(found)
        return iter(_trees[id(cls)])

    def names(cls) -> list[str]:
        """All item names of this registry and its descendants, sorted in each: imports come in any order."""
        for registry in cls.tree():
            registry.load_package()
        return [name for registry in cls.tree() for name in sorted(registry.data)]

    def choices(cls) -> list[str]:
        """The names of the items that this registry accepts."""
        cls.names()
        return [name for registry in cls.tree() for name, item in registry.data.items() if cls.accepts(registry, item)]

    def load_item(cls, name: str) -> None:
        """Import the modules of the package whose source registers an item of this name."""
        if 'package' in cls.__dict__ and not cls.__dict__.get('_loaded', False):
            for module in registering(cls.package).get(name, ()):
                importlib.import_module(module)

    def load_package(cls) -> None:
        """Import the modules that register into this registry; only the first call does."""
        package = cls.__dict__.get('package')
        if package is None or cls.__dict__.get('_loaded', False):
            return
        type.__setattr__(cls, '_loaded', True)
        try:
            module = importlib.import_module(package)
            for info in pkgutil.walk_packages(getattr(module, '__path__', []), f'{package}.'):
                if not info.name.endswith('__main__'):
                    importlib.import_module(info.name)
        except BaseException:
            type.__setattr__(cls, '_loaded', False)  # retry on the next miss: half a package lacks types
            raise

    def _unknown(cls, key: str, name: str) -> str:
        cls.root().names()  # imports every package
        elsewhere = [registry for registry in cls.root().tree() if name in registry.data]
        if elsewhere:
            return cls._other_kind(key, elsewhere[0])
        return f"unknown type '{key}' in {cls.__name__}{nearest(name, cls.choices())}"

    def _other_kind(cls, key: str, owner: TreeMeta) -> str:
        given, wanted = owner.interface_class(), cls.interface_class()
        is_a = f'{owner.__name__} item' + (f' ({given.__name__})' if given else '')
        needed = f'{cls.__name__} item' + (f' ({wanted.__name__})' if wanted else '')
        return f"'{key}' is a {is_a}, and a {needed} is needed here"

    def build(cls, config: Any, path: str = '', **defaults: Any) -> Any:
        """Build the part a config describes. The config is copied, never changed, and constructors get plain dicts. Parts in
        the config that are built already are passed on as the same objects.
        """
        path = path or cls.__name__
        if not isinstance(config, Mapping):
            raise ConfigError(f'{path}: a part is needed here, not {config!r:.60}', f'Write dict(type=...) of {cls.__name__}.')
        return build_part(cls, {**defaults, **plain(config)}, path)

    def build_or_return(cls, config: Any, predicate: Callable[[Any], bool] | None = None, **defaults: Any) -> Any:
        """Build a config with a ``type``, plain dicts included (todd returns them unbuilt). Return anything else unchanged."""
        return cls.build(config, **defaults) if (predicate or is_part)(config) else config


class Registry(ToddRegistry, metaclass=TreeMeta):  # type: ignore[misc,valid-type]
    """Base of the tree; the tree itself is defined in ``vq/registries.py``."""

    interface: ClassVar[str]
    retired: ClassVar[Mapping[str, str]] = {}  # former names of items -> what to write now


def _below(start: TreeMeta, name: str) -> list[TreeMeta]:
    """The registries from ``start`` down that hold ``name``. An item of ``start`` hides others, which need dotted names."""
    return [start] if name in start.data else [registry for registry in start.tree() if name in registry.data]


@functools.cache
def _import_class(target: str) -> type:
    module, _, name = target.partition(':')
    found: type = getattr(importlib.import_module(module), name)
    return found


def _registry_of(interface: type, root: TreeMeta) -> TreeMeta | None:
    if id(root) not in _owners:
        owners: dict[str, list[TreeMeta]] = {}
        for registry in root.tree():
            target: str = registry.__dict__.get('interface', '')
            owners.setdefault(target.rpartition(':')[2], []).append(registry)
        _owners[id(root)] = owners
    for registry in _owners[id(root)].get(interface.__name__, ()):
        if _import_class(registry.__dict__['interface']) is interface:
            return registry
    return None


def registry_for(annotation: Any, root: TreeMeta) -> TreeMeta | None:
    """The registry that builds values of an annotation; None if the annotation is not that of a part."""
    if get_origin(annotation) is Annotated:
        marked: list[TreeMeta] = [extra for extra in get_args(annotation)[1:] if is_registry(extra)]
        if marked:
            return marked[0]
    for kind in alternatives(annotation):
        found = _registry_of(kind, root) if isinstance(kind, type) else None
        if get_origin(kind) is Annotated:
            found = registry_for(kind, root)
        if found is not None:
            return found
    return None


def beside_of(annotation: Any) -> type | None:
    """``Annotated[X, SomeRegistry, Settings]``: the dataclass ``Settings``, whose fields are keys in the part's dict.

    The registry takes these keys out and builds the dataclass from them: the value is the pair (part, settings).
    """
    for kind in (annotation, *alternatives(annotation)):
        if get_origin(kind) is Annotated:
            found = [extra for extra in get_args(kind)[1:] if isinstance(extra, type) and dataclasses.is_dataclass(extra)]
            if found:
                return found[0]
    return None


def elements_of(annotation: Any, value: Any) -> Any | None:
    """The annotation of the elements of a container ``value``: ``list[X]``, ``tuple[X, ...]``, ``dict[str, X]`` -> X."""
    for kind in alternatives(annotation):
        origin, arguments = get_origin(strip(kind)), get_args(strip(kind))
        if not isinstance(origin, type) or not arguments:
            continue
        if isinstance(value, Mapping) and issubclass(origin, Mapping) and len(arguments) == 2:
            return arguments[1]
        if isinstance(value, list | tuple) and issubclass(origin, Sequence) and arguments[1:] in ((), (Ellipsis,)):
            return arguments[0]
    return None


class Slot(NamedTuple):
    """What an annotation makes of a config value: a part, a record, a container of these. Empty: the value is kept."""

    registry: TreeMeta | None = None  # builds the part
    beside: type | None = None  # the dataclass whose fields share the dict of the part
    record: type | None = None
    element: Any = None  # annotation of the elements
    parts: bool = False  # the elements are parts: None switches an inherited part off


NOTHING = Slot()


def slot_of(annotation: Any, value: Any, root: TreeMeta) -> Slot:
    if not isinstance(value, list | tuple | Mapping):
        return NOTHING
    registry, record, element = registry_for(annotation, root), dataclass_in(annotation), elements_of(annotation, value)
    if registry is not None and isinstance(value, Mapping) and (is_part(value) or element is None):
        return Slot(registry=registry, beside=beside_of(annotation))
    if record is not None and isinstance(value, Mapping):
        return Slot(record=record)
    if element is not None and isinstance(value, Mapping | list | tuple):
        return Slot(element=element, parts=registry_for(element, root) is not None)
    return NOTHING


def entries_of(value: Any, parts: bool, path: str) -> Iterator[tuple[Any, Any, str]]:
    """(key, element, path) for each element of a container. Among parts, None is skipped: a part switched off."""
    named = isinstance(value, Mapping)
    for key, item in value.items() if named else enumerate(value):
        if not (parts and item is None):
            yield key, item, f'{path}.{key}' if named else f'{path}[{key}]'


def is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and 'type' in value


def find_item(registry: TreeMeta, kind: Any, path: str) -> tuple[TreeMeta, Any]:
    """The item a ``type`` names, with the registry that holds it. In Python code, ``type`` can be the class itself."""
    if kind is None:
        raise ConfigError(
            f"{path}: 'type' is missing", f'Add type=...; {registry.__name__} has: {listing(registry.choices())}.'
        )
    if not isinstance(kind, str):
        if callable(kind):
            return registry, kind
        raise ConfigError(f"{path}: 'type' is {kind!r:.60}", f'Name an item of {registry.__name__}.')
    try:
        return registry.parse(kind)
    except UserError as error:
        raise ConfigError(f'{path}: {error.message}', error.hint) from error


def settings_of(config: Mapping[str, Any], owner: TreeMeta, item: Any, path: str) -> dict[str, Any]:
    """A part's config without ``type``, through the item's ``build_pre_hook`` (todd's convention for items from outside)."""
    values = {key: value for key, value in config.items() if key != 'type'}
    hook = getattr(item, 'build_pre_hook', None)
    if hook is None:
        return values
    try:
        converted: dict[str, Any] = plain(hook(Config(plain(values)), owner, item))
        return converted
    except UserError as error:
        raise ConfigError(f'{path}: {error.message}', error.hint) from error
    except Exception as error:
        raise ConfigError(
            f'{path}: the build_pre_hook fails: {type(error).__name__}: {error}',
            'See the parameters it was given in the config.',
        ) from error


class OpenPart(NamedTuple):
    """The config of a part, split between the item and the dataclass beside it."""

    item: Any
    name: str
    values: dict[str, Any]  # arguments of the item
    parameters: dict[str, Parameter]  # parameters of the item
    shared: dict[str, Any]  # arguments of the dataclass
    beside: dict[str, Parameter]  # parameters of the dataclass


def open_part(registry: TreeMeta, config: Mapping[str, Any], path: str, beside: type | None = None) -> OpenPart:
    from vq.core.bindings import without_open  # bindings imports this module

    kind = config.get('type')
    owner, item = find_item(registry, kind, path)
    name = kind if isinstance(kind, str) else getattr(item, '__name__', repr(item))
    fields = {} if beside is None else parameters_of(beside)
    shared = {key: value for key, value in config.items() if key in fields}
    own = {key: value for key, value in config.items() if key not in shared}
    values = without_open(item, settings_of(own, owner, item, path))
    parameters = parameters_of(item)
    both = [key for key in parameters if key in fields]
    if both:
        raise ConfigError(
            f"{path}: {name} has a parameter '{both[0]}', also a field of {getattr(beside, '__name__', '')} beside it",
            f'Rename the parameter of {name}.',
        )
    return OpenPart(item, name, values, parameters, shared, fields)


def unknown_keys(opened: OpenPart, path: str) -> Iterator[tuple[str, str]]:
    """(message, hint) for each key that is a parameter neither of the item nor of the dataclass beside it."""
    if takes_any_keyword(opened.item):
        return
    known = [*opened.parameters, *opened.beside]
    unknown = [key for key in opened.values if key not in opened.parameters]
    if changed := type_changes.hint(opened.name, path):  # one cause for all of them
        named = ', '.join(map(repr, unknown))
        hint = f'It takes: {listing(known) or "nothing"}. {changed}'
        yield from [(f'{path}: {opened.name} has no parameter {named}', hint)] if unknown else []
        return
    for key in opened.values:
        if key not in opened.parameters:
            moved: str | None = getattr(opened.item, 'elsewhere', {}).get(key)
            yield (
                f"{path}: {opened.name} has no parameter '{key}'" + ('' if moved else nearest(str(key), known)),
                moved or f'It takes: {listing(known) or "nothing"}.',
            )


def build_part(registry: TreeMeta, config: Mapping[str, Any], path: str, beside: type | None = None) -> Any:
    """Build ``config`` from ``registry``; nested parts first, in signature order, with ``wires`` and ``binds`` applied.

    With a dataclass ``beside``: the pair (part, dataclass).
    """
    from vq.core.bindings import Binder  # bindings imports this module

    opened = open_part(registry, config, path, beside)
    for problem in unknown_keys(opened, path):
        raise ConfigError(*problem)
    item, values, root = opened.item, opened.values, registry.root()
    missing = [name for name, parameter in opened.parameters.items() if parameter.required and name not in values]
    if missing:
        raise ConfigError(f'{path}: {opened.name} needs {listing(missing)}', f'Add {missing[0]}=... to this part.')
    wires: dict[str, str] = getattr(item, 'wires', {})
    binder = Binder(root, item, path)
    for key, parameter in opened.parameters.items():
        if key in values:
            _wire(key, values, wires, path)
            binder.fill(key, values)
            values[key] = build_value(root, values[key], parameter.annotation, f'{path}.{key}')
    binder.finish(values)
    part = _construct(item, values, f'{path}: {opened.name}', path)
    return part if beside is None else (part, _build_record(root, beside, opened.shared, path))


def _construct(item: Any, values: dict[str, Any], label: str, path: str) -> Any:
    try:
        return item(**values) if isinstance(item, type) else functools.partial(item, **values)
    except UserError as error:
        if error.message.startswith(path.split('.')[0] + '.'):
            raise
        raise type(error)(f'{path}: {error.message}', error.hint) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f'{label} cannot be built: {error}', 'See the parameters it was given in the config.') from error
    except Exception as error:
        error.add_note(f'while building {label}')
        raise


def _wire(name: str, values: dict[str, Any], wires: dict[str, str], path: str) -> None:
    """Fill the settings of part ``name`` that come from a sibling built before it. A value in the config takes precedence."""
    for target, source in wires.items():
        part, _, key = target.partition('.')
        if part != name or not is_part(values[name]) or key in values[name]:
            continue
        sibling, _, attribute = source.partition('.')
        if values.get(sibling) is None:
            continue
        try:
            given = functools.reduce(getattr, attribute.split('.') if attribute else (), values[sibling])
        except AttributeError as error:
            raise ConfigError(
                f"{path}.{name}: '{key}' is taken from {source}, and {type(values[sibling]).__name__} has no '{attribute}'",
                f'Add {key}=... to {path}.{name}, or give {type(values[sibling]).__name__} the attribute.',
            ) from error
        values[name] = {**values[name], key: given}


def build_value(root: TreeMeta, value: Any, annotation: Any, path: str) -> Any:
    """Build one config value as the annotation of its parameter says."""
    slot = slot_of(annotation, value, root)
    if slot.registry is not None:
        return build_part(slot.registry, value, path, slot.beside)
    if slot.record is not None:
        return _build_record(root, slot.record, value, path)
    if slot.element is None:
        return value
    built = {key: build_value(root, item, slot.element, where) for key, item, where in entries_of(value, slot.parts, path)}
    if isinstance(value, Mapping):
        return built
    return tuple(built.values()) if isinstance(value, tuple) else [*built.values()]


def _build_record(root: TreeMeta, record: Callable[..., Any], value: Mapping[str, Any], path: str) -> Any:
    parameters = parameters_of(record)
    for key in value:
        if key not in parameters:
            raise ConfigError(
                f"{path}: there is no '{key}'{nearest(str(key), parameters)}", f'It takes: {listing(parameters)}.'
            )
    missing = [name for name, parameter in parameters.items() if parameter.required and name not in value]
    if missing:
        raise ConfigError(f'{path}: {record.__name__} needs {listing(missing)}', f'Add {missing[0]}=... to it.')
    built = {key: build_value(root, item, parameters[key].annotation, f'{path}.{key}') for key, item in value.items()}
    return _construct(record, built, f'{path}: {record.__name__}', path)
