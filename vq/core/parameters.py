"""The parameters of a constructor, with their annotations, and whether a value fits an annotation."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from vq.core.errors import ConfigError

REQUIRED: Any = inspect.Parameter.empty
T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One constructor parameter; without a default, ``default`` is ``REQUIRED``."""

    name: str
    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


@functools.cache
def parameters_of(item: Callable[..., Any]) -> dict[str, Parameter]:
    """The explicit parameters of a class or function, in order, annotations evaluated.

    A config turns a function into a ``functools.partial`` and sets only its keyword-only parameters: the caller gives the
    others. Without ``*`` in the signature, a config can set every parameter, and none is required.
    """
    function = item.__init__ if isinstance(item, type) else item  # type: ignore[misc]
    if isinstance(item, type) and function is object.__init__:
        return {}
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigError(
            f'an annotation of {getattr(item, "__qualname__", item)} cannot be read: {error}',
            'Import what annotations name at run time, not under TYPE_CHECKING.',
        ) from error
    found = {}
    for index, parameter in enumerate(inspect.signature(function).parameters.values()):
        if index == 0 and isinstance(item, type):
            continue  # self
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue  # our own classes have none (a test checks); of others (torch's) only named parameters are checked
        found[parameter.name] = Parameter(parameter.name, hints.get(parameter.name, Any), parameter.default)
    if isinstance(item, type):
        return found
    signature = inspect.signature(function).parameters
    settings = {name: found[name] for name in found if signature[name].kind is inspect.Parameter.KEYWORD_ONLY}
    return settings or {name: dataclasses.replace(parameter, default=None) for name, parameter in found.items()}


def takes_any_keyword(item: Callable[..., Any]) -> bool:
    function = item.__init__ if isinstance(item, type) else item  # type: ignore[misc]
    if isinstance(item, type) and function is object.__init__:
        return False
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _remembered(function: Callable[[Any], T]) -> Callable[[Any], T]:
    """Cached by the annotation itself: ``Literal['a', 'b']`` equals ``Literal['b', 'a']``, and is described otherwise."""
    known: dict[int, tuple[Any, T]] = {}  # with the annotation, which keeps its id from being used again

    @functools.wraps(function)
    def found(annotation: Any) -> T:
        if id(annotation) not in known:
            known[id(annotation)] = annotation, function(annotation)
        return known[id(annotation)][1]

    return found


@_remembered
def strip(annotation: Any) -> Any:
    """``Annotated[X, ...]`` -> ``X``; a generic class with its arguments, ``Callback[X]`` -> ``Callback``."""
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    origin = get_origin(bare)
    return origin if isinstance(origin, type) and issubclass(origin, Generic) else bare  # type: ignore[arg-type]


@_remembered
def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union (``X | None`` -> ``(X, NoneType)``), or the bare annotation alone."""
    bare = strip(annotation)
    members = get_args(bare) if get_origin(bare) in (Union, types.UnionType) else (bare,)
    return tuple(kind if get_origin(kind) is Annotated else strip(kind) for kind in members)


@_remembered
def dataclass_in(annotation: Any) -> type | None:
    """The dataclass among an annotation's alternatives: in a config it is a dict without ``type``."""
    return next((kind for kind in alternatives(annotation) if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None)


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain config value fits an annotation. Unknown annotations accept every value."""
    bare = strip(annotation)
    origin = get_origin(bare)
    if bare is Any or isinstance(bare, str | typing.TypeVar):
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, member) for member in get_args(bare))
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(bare))
    if bare is None or bare is type(None):
        return value is None
    if origin is not None:
        return _fits_container(value, origin, get_args(bare))
    if bare is bool:
        return isinstance(value, bool)
    if bare is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if bare is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if bare is str:
        return isinstance(value, str)
    if bare is Path:
        return isinstance(value, str | Path)
    if isinstance(bare, type) and issubclass(bare, list | tuple | dict | set):
        return isinstance(value, Mapping if issubclass(bare, dict) else list | tuple | set)
    if isinstance(bare, type):
        # a part: built already, or a dict, which the registry checks
        return isinstance(value, bare) or isinstance(value, Mapping)
    return True


def _fits_container(value: Any, origin: Any, arguments: tuple[Any, ...]) -> bool:
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and (
            not arguments or all(fits(item, arguments[1]) or item is None for item in value.values())
        )
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        if not arguments:
            return True
        if arguments[-1] is Ellipsis:
            return all(fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    if isinstance(origin, type) and issubclass(origin, typing.Iterable):
        return isinstance(value, list | tuple | set) and (not arguments or all(fits(item, arguments[0]) for item in value))
    if origin is Callable:
        return callable(value) or isinstance(value, str | Mapping)
    return True


def describe(annotation: Any) -> str:
    """An annotation as a user would write it."""
    bare = strip(annotation)
    origin, arguments = get_origin(bare), get_args(bare)
    if bare is Ellipsis:
        return '...'
    if bare is type(None):
        return 'None'
    if origin in (Union, types.UnionType):
        return ' | '.join(describe(kind) for kind in arguments)
    if origin is Literal:
        return ' | '.join(repr(choice) for choice in arguments)
    if origin is Callable:
        return 'Callable'
    if isinstance(origin, type) and arguments:
        return f'{origin.__name__}[{", ".join(describe(kind) for kind in arguments)}]'
    return bare.__name__ if isinstance(bare, type) else str(bare).replace('typing.', '')
