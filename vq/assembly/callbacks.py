"""Callbacks of a config: defaults of the runner, names, order; and the retired callback that stepped the optimizers.

``callbacks`` is a dict of names -> parts. It is merged over the defaults of the runner and sorted by phase, so positions
(``.trainer.callbacks[-1]``) refer to the order in which the runner gets them. None under a name switches a part off. The
None stays in the config, so that a composed config composes to itself. A list is used as it is.

The settings of an ``OptimizeCallback``, in a dict or a list, move into the optimizers that it names. In a list, None takes its
place, so that paths to the other callbacks stay valid.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from vq.core.config import PyConfig
from vq.core.errors import ConfigError, UserError, listing, nearest
from vq.core.parts import NamedParts
from vq.core.paths import parse_path
from vq.core.phases import BUILT_IN, DEFAULT_PHASE, MOVED_SETTINGS, PHASES, RUNNERS, STEP_SETTINGS

logger = logging.getLogger('vq')

RETIRED = 'OptimizeCallback'


def settle_callbacks(config: PyConfig) -> list[str]:
    """Give the callbacks of a config's runners their final form; returns the paths that step settings moved to.

    Callbacks in final form do not change.
    """
    return [path for which in ('trainer', 'validator') for path in settle_runner(config.get(which), which)]


def tell_moved(paths: Sequence[str]) -> None:
    if paths and os.environ.get('RANK', '0') in ('', '0'):
        logger.warning(
            'the trainer steps the optimizers: settings of %s moved to %s and replace those there. Write them there',
            RETIRED,
            listing(dict.fromkeys(paths)),
        )


def settle_runner(runner: Any, which: str) -> list[str]:
    """The same for the callbacks of one runner."""
    if not isinstance(runner, PyConfig):
        return []
    moved = _take_steps(runner, which)
    given = runner.get('callbacks')
    if given is None or isinstance(given, Mapping):
        defaults = _defaults_of(runner.get('type'))
        if defaults or given is not None:
            runner['callbacks'] = _ordered(NamedParts() if given is None else NamedParts.of(given), defaults)
    return moved


def _ordered(given: NamedParts, defaults: Mapping[str, Mapping[str, Any]]) -> NamedParts:
    merged: dict[str, Any] = {}
    for name in [*given.keys(), *(name for name in defaults if name not in given)]:
        part = given.get(name, defaults.get(name))
        if isinstance(part, Mapping) and name in defaults:
            part = PyConfig(defaults[name])
            part.update(given.get(name, {}))
        merged[name] = part
    places = {name: PHASES.index(_phase_of(part)) for name, part in merged.items()}
    return NamedParts({name: merged[name] for name in sorted(merged, key=places.__getitem__)})


def _defaults_of(kind: Any) -> Mapping[str, Mapping[str, Any]]:
    """The default callbacks of a runner, by its type."""
    name = str(kind).rpartition('.')[2]
    if name in RUNNERS:
        return RUNNERS[name]
    from vq.registries import VQRunnerRegistry

    return getattr(_item(VQRunnerRegistry, kind), 'default_callbacks', {})


def _phase_of(part: Any) -> str:
    kind = part.get('type') if isinstance(part, Mapping) else None
    if kind in BUILT_IN:
        return BUILT_IN[kind][1]
    from vq.registries import VQCallbackRegistry

    phase = (None if kind is None else getattr(_item(VQCallbackRegistry, kind), 'phase', None)) or DEFAULT_PHASE
    if phase not in PHASES:
        raise ConfigError(
            f"{kind} declares the phase '{phase}'{nearest(str(phase), PHASES)}", f'There are: {listing(PHASES, 20)}.'
        )
    return str(phase)


def _item(registry: Any, kind: Any) -> Any:
    """The class that a type names, or None if it is unknown: ``vq.core.check`` reports it."""
    if not isinstance(kind, str):
        return kind
    try:
        return registry.parse(kind)[1]
    except UserError:
        return None


# the retired callback


def _is_retired(part: Any) -> bool:
    return isinstance(part, Mapping) and str(part.get('type')).rpartition('.')[2] == RETIRED


def _take_steps(runner: PyConfig, which: str) -> list[str]:
    """Move the settings of every OptimizeCallback into the optimizers; returns their new paths."""
    callbacks = runner.get('callbacks')
    named = isinstance(callbacks, Mapping)
    places: dict[Any, Any] = dict(callbacks.items() if isinstance(callbacks, Mapping) else enumerate(callbacks or ()))
    places = {place: part for place, part in places.items() if _is_retired(part)}
    moved: dict[str, Mapping[str, Any]] = {}
    for place, part in places.items():
        where = f'{which}.callbacks' + (f'.{place}' if named else f'[{place}]')
        for name in _targets(part, runner.get('optimizers'), where):
            if name in moved:
                raise ConfigError(f"{where}: a second {RETIRED} steps '{name}'", 'Leave one of them out.')
            moved[name] = {key: value for key, value in part.items() if key in STEP_SETTINGS}
        if named:
            del runner['callbacks'][place]
        else:
            runner['callbacks'][place] = None
    for name, settings in moved.items():
        kept = {key: value for key, value in runner['optimizers'][name].items() if key not in STEP_SETTINGS}
        runner['optimizers'][name] = PyConfig({**kept, **settings})
    paths = {name: f'.{which}.optimizers.{name}' for name in moved}
    return [path for name, settings in moved.items() for path in [f'{paths[name]}.{key}' for key in settings] or [paths[name]]]


def _targets(part: Mapping[str, Any], optimizers: Any, where: str) -> list[str]:
    """The optimizers that an OptimizeCallback steps."""
    known = [name for name, optimizer in (optimizers or {}).items() if isinstance(optimizer, Mapping)]
    for key in part:
        if key not in ('type', 'optimizer', *STEP_SETTINGS):
            keys = ('optimizer', *STEP_SETTINGS)
            raise ConfigError(f"{where}: {RETIRED} has no parameter '{key}'{nearest(str(key), keys)}", f'{listing(keys)}.')
    name = part.get('optimizer')
    if name is not None and name not in known:
        raise ConfigError(
            f"{where}: {RETIRED} names the optimizer '{name}'; there are {sorted(known)}",
            'Name one of these, or None for all.',
        )
    return known if name is None else [name]


def refuse_moved(config: PyConfig, path: str) -> None:
    """Refuse an override of a step setting at its former place in the callbacks, and name its present place."""
    steps = parse_path(path)
    if len(steps) < 4 or steps[1] != 'callbacks' or not isinstance(config.get(str(steps[0])), PyConfig):
        return
    runner, place, key = config[str(steps[0])], steps[2], steps[3]
    part = _at(runner.get('callbacks'), place)
    if key not in MOVED_SETTINGS or (isinstance(part, Mapping) and (key in part or _takes(part, str(key)))):
        return
    if isinstance(part, Mapping) or (part is None and isinstance(place, int) and isinstance(runner.callbacks, list)):
        names = [*(runner.get('optimizers') or {})] or ['NAME']
        rest = path[path.index(f'.{key}') :] if key != 'optimizer' else '.clip'
        raise ConfigError(
            f"override '{path}': the trainer steps, and the settings of the step are in the optimizers",
            f'Write {" or ".join(f".{steps[0]}.optimizers.{name}{rest}" for name in names)}.'
            + ('' if isinstance(part, Mapping) else ' The other callbacks of this list keep their positions.'),
        )


def _at(callbacks: Any, place: str | int) -> Any:
    try:
        return callbacks[place]
    except (KeyError, IndexError, TypeError):
        return Ellipsis  # missing: applying the override raises the error


def _takes(part: Mapping[str, Any], key: str) -> bool:
    from vq.core.parameters import parameters_of, takes_any_keyword
    from vq.registries import VQCallbackRegistry

    item = _item(VQCallbackRegistry, part.get('type'))
    return item is None or key in parameters_of(item) or takes_any_keyword(item)
