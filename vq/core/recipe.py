"""Recipes: functions whose keyword-only parameters are the options of the configs that call them.

    @recipe(photo_data)
    def autoencoder(given: Given, *, width: Annotated[int, 'channels of the first level', alias('channels')] = 128) -> Config:

The first argument of a recipe is ``given``: ``_kwargs_`` of the config file that calls it, or ``given`` of a calling recipe.
Other arguments before ``*`` are pieces that the caller has built. Parameters after ``*`` are options, each with a type, a
default and a meaning. ``@recipe(...)`` names the recipes that this one calls: their options are options of this one too.

Precedence, highest first: the command line, ``_kwargs_.setdefault`` of a file, keywords of the outermost call (in a config
file), keywords of inner calls, defaults of the signature.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

from vq.core.config import PyConfig, plain
from vq.core.errors import ConfigError, listing, nearest
from vq.core.options import Declared, Options
from vq.core.parameters import describe, fits

logger = logging.getLogger('vq')

Config = Any  # a dict, or a PyConfig
Part = dict[str, Any]  # dict(type=..., ...)
REQUIRED: Any = inspect.Parameter.empty
_warned: set[tuple[str, str]] = set()


def alias(*names: str) -> tuple[str, tuple[str, ...]]:
    """Other names of an option, which older configs and commands use."""
    return 'alias', names


def short(*names: str) -> tuple[str, tuple[str, ...]]:
    """Shorter names of an option, for command lines. Unlike an ``alias``, they are not old: no warning."""
    return 'short', names


def config_of(side: str) -> tuple[str, str]:
    """Marks an option that names a config file: ``side.NAME`` on the command line is an option of that file."""
    return 'side', side


def merge(*configs: Mapping[str, Any]) -> PyConfig:
    """Dicts merge key by key, anything else is replaced; ``_delete_`` replaces a dict whole."""
    merged = PyConfig()
    for config in configs:
        merged.update(config)
    return merged


@dataclasses.dataclass(frozen=True)
class Layer:
    """The keywords of one call, and the name of its caller."""

    who: str
    values: Mapping[str, Any]


class Given:
    """Options as a recipe sees them: those of the config file, then keywords of the enclosing calls, outermost first."""

    def __init__(
        self, options: Options, root: Recipe, who: str, layers: tuple[Layer, ...] = (), sealed: Mapping[str, int] | None = None
    ) -> None:
        self.options, self.root, self.layers = options, root, layers
        self.who = who  # the config file or recipe that passes keywords on
        self.sealed = sealed or {}  # name -> the first layer that can set it; options and outer layers cannot

    def below(self, who: Recipe, keywords: Mapping[str, Any]) -> Given:
        """``Given`` for a call of ``who`` with ``keywords``; options and outer keywords override these."""
        layers = (*self.layers, Layer(self.who, keywords)) if keywords else self.layers
        return Given(self.options, self.root, who.name, layers, self.sealed)

    def sealing(self, names: tuple[str, ...]) -> Given:
        """``Given`` for inner calls: only keywords of these calls can set ``names``."""
        sealed = {**dict.fromkeys(names, len(self.layers)), **self.sealed}
        return Given(self.options, self.root, self.who, self.layers, sealed) if names else self

    def find(self, option: Declared) -> tuple[Any, str]:
        """Value and origin of an option."""
        record, first = self.options.record, self.sealed.get(option.name)
        there = [name for name in option.names() if first is None and self.options.has(name)]
        record.read.update(there)
        if len(there) > 1:
            raise ConfigError(
                f"'{there[1]}' is another name of the option '{there[0]}', and both are given", f'Give {option.name} alone.'
            )
        if there:
            if there[0] in option.aliases and (there[0], option.owner) not in _warned:
                _warned.add((there[0], option.owner))
                logger.warning("the option '%s' is called '%s' now; the old name still works", there[0], option.name)
            return self.options[there[0]], record.origins.get(there[0], 'Python')
        for layer in self.layers[first or 0 :]:
            for name in option.names():
                if name in layer.values:
                    return layer.values[name], layer.who
        if option.default is REQUIRED:
            raise ConfigError(
                f"{self.options.file or option.owner} needs the option '{option.name}' ({option.meaning})",
                f'Give it after CONFIG: {option.name}=VALUE',
            )
        return option.default, 'default'

    def last(self, first: str, second: str) -> str | None:
        """Which of two options that exclude each other counts: that of the highest precedence; None if none was set."""
        names = (first, second)
        sources = [{name for name in names if self.options.has(name)}, *({*names} & {*each.values} for each in self.layers)]
        found = next(filter(None, sources), set[str]())
        if len(found) > 1:
            raise ConfigError(f'the options {first} and {second} are given', 'Give one of them: both set the same.')
        return next(iter(found), None)

    def said(self, name: str) -> bool:
        """Whether the option was set anywhere; if not, it has the default of a signature."""
        return self.options.has(name) or any(name in layer.values for layer in self.layers)

    def load(self, file: str, side: str, hidden: Sequence[str] = (), **more: Any) -> PyConfig:
        """Compose the config ``file`` that an option names. Its options are ``side.NAME``, ``more``, and options that the
        recipe of this config does not declare, except those in ``hidden``.
        """
        own, record, options = self.root.names, self.options.record, self.options
        values = dict(more)
        for layer in reversed(self.layers):  # the outermost call wins
            values |= {name: value for name, value in layer.values.items() if name not in own}
        values |= {name: options.peek(name) for name in options if name not in own}
        values = {name: value for name, value in values.items() if name not in hidden}
        sent = {name: name for name in values}
        for name in [name for name in values if name.startswith(f'{side}.')]:
            inner = name.removeprefix(f'{side}.')
            sent[inner], values[inner] = name, values.pop(name)
        config, inside = PyConfig.load_beside(file, values)
        record.others[side] = inside
        record.read |= {sent[name] for name in values if name in inside.read and name in sent}
        return config

    def load_with_all(self, file: str, **settings: Any) -> PyConfig:
        """Compose a user's file with all options, of which it reads some. ``settings`` are options resolved by the caller."""
        values = {**settings, **{name: self.options.peek(name) for name in self.options}}
        config, inside = PyConfig.load_beside(file, values)
        self.options.record.read |= inside.read
        return config


class Recipe:
    """A function whose keyword-only parameters are options."""

    def __init__(self, function: Callable[..., Any], uses: tuple[Recipe, ...], hides: tuple[str, ...]) -> None:
        functools.update_wrapper(self, function)
        self.function, self.uses, self.hides, self.name = function, uses, hides, function.__name__

    @functools.cached_property
    def own(self) -> tuple[Declared, ...]:
        hints = typing.get_type_hints(self.function, include_extras=True)
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(
            _declare(self.name, parameter, hints[parameter.name])
            for parameter in parameters
            if parameter.kind is parameter.KEYWORD_ONLY
        )

    @functools.cached_property
    def declared(self) -> tuple[Declared, ...]:
        """The options of this recipe, then those of the recipes it calls, each name once."""
        found: dict[str, Declared] = {}
        below = [option for use in self.uses for option in use.declared if option.name not in self.hides]
        for option in (*self.own, *below):
            found.setdefault(option.name, option)
        return tuple(found.values())

    @functools.cached_property
    def names(self) -> frozenset[str]:
        return frozenset(name for option in self.declared for name in option.names())

    def __call__(self, given: Given | Mapping[str, Any], *pieces: Any, **keywords: Any) -> Any:
        if not isinstance(given, Given):
            options = given if isinstance(given, Options) else Options(given)
            given = Given(options, self, options.file)
            options.record.declare(self.declared)
        named = {name: keywords.pop(name) for name in [*keywords] if name in self._pieces}
        self._judge(keywords, given)
        given = given.below(self, keywords)
        values = {}
        for option in self.own:
            value, origin = given.find(option)
            if value is not option.default and not fits(value, option.annotation):
                raise ConfigError(
                    f'the option {option.name} is {value!r:.60} ({origin}), and {describe(option.annotation)} is needed',
                    f'{option.name}: {option.meaning}.{_spelling(option, value)}',
                )
            values[option.name] = plain(value)
            given.options.record.values.setdefault(option.name, (value, origin))
        return self.function(given.sealing(self.hides), *pieces, **named, **values)

    @functools.cached_property
    def _pieces(self) -> frozenset[str]:
        parameters = inspect.signature(self.function).parameters.values()
        return frozenset(parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY)

    def _judge(self, keywords: Mapping[str, Any], given: Given) -> None:
        """Refuse keywords that no recipe declares, unless an option names another config, to which they may belong."""
        if any(option.side for option in given.root.declared):
            return
        for name in keywords:
            if name not in self.names:
                raise ConfigError(
                    f"{given.options.file}: {self.name} has no option '{name}'{nearest(name, self.names)}",
                    f'It has: {listing(self.names, 60)}.',
                )


def _spelling(option: Declared, value: Any) -> str:
    """How to write a value that ``key=value`` has read as another type."""
    if isinstance(value, str) and value.lower() in ('true', 'false', 'none', 'null'):
        return ' Write True, False and None as Python does.'
    if not isinstance(value, str) and fits(str(value), option.annotation):
        return f' For a text write {option.name}::{value}.'
    return ''


def recipe(*uses: Recipe, hides: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Recipe]:
    """Make a function a recipe. ``uses``: the recipes it calls; ``hides``: their options that it sets itself."""
    return lambda function: Recipe(function, uses, hides)


def _declare(owner: str, parameter: inspect.Parameter, annotation: Any) -> Declared:
    if get_origin(annotation) is not Annotated:
        raise TypeError(f'{owner}: the option {parameter.name} has no meaning: write Annotated[type, meaning]')
    kind, meaning, *extras = get_args(annotation)
    found = dict(extras)
    names = found.get('alias', ()), found.get('side', ''), found.get('short', ())
    return Declared(parameter.name, kind, parameter.default, meaning, owner, *names)
