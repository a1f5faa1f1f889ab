"""Settings of drawing that commands give: which sampler, how many steps, how much guidance."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from vq.core.config import plain
from vq.core.errors import UserError, listing, nearest
from vq.interfaces.drawing import Setting
from vq.registries import VQDiffusionSamplerRegistry, VQGuidanceRegistry

SETTINGS = ('guidance', 'sampler', 'steps', 'history')


def check(settings: Mapping[str, Any], guides: bool) -> None:
    """Raise for settings that diffusion does not have. ``guides``: there is something to be guided by."""
    unknown = [name for name in settings if name not in SETTINGS]
    if unknown:
        raise UserError(f"diffusion has no setting '{unknown[0]}'", f'It has: {listing(SETTINGS)}.')
    scale = settings.get('guidance')
    if scale not in (None, 1) and not guides:
        raise UserError(
            f'guidance is {scale:g}, and the denoiser learned no condition to be guided by',
            'Leave it out. Guidance needs a conditioner, such as ClassConditioner, or a guide.',
        )
    if settings.get('steps') is not None and settings['steps'] < 1:
        raise UserError(f'a sampler of {settings["steps"]} steps', 'Give 1 or more.')


def own(config: Mapping[str, Any]) -> dict[str, Setting]:
    """The settings that ``changed_config`` takes for this config."""
    part = plain(config['sampler'])
    while isinstance(part.get('sampler'), dict):
        part = part['sampler']
    found = {'sampler': Setting(last_part(part['type']), tuple(sampler_names())), 'steps': Setting(part.get('steps'))}
    if config.get('conditioner') is not None or config.get('guide') is not None:
        found['guidance'] = Setting(scale_of(plain(config['guidance'])))
    return found | {'history': Setting(config.get('history', 0))}


def scale_of(guidance: Mapping[str, Any]) -> float | None:
    """The scale of a schedule that has one for all steps."""
    return float(guidance.get('scale', 1.0)) if last_part(guidance['type']) == 'ConstantGuidance' else None


def last_part(name: str) -> str:
    return name.split('.')[-1]


def changed_config(config: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Put settings into the config of a task; returns those that the images depend on."""
    check(settings, config.get('conditioner') is not None or config.get('guide') is not None)
    config['sampler'] = _changed_part(plain(config['sampler']), settings)
    if settings.get('guidance') is not None:
        config['guidance'] = _constant(settings['guidance'])
    if settings.get('history') is not None:
        config['history'] = int(settings['history'])
    return {'sampler': plain(config['sampler']), 'guidance': plain(config['guidance'])}


def _changed_part(own: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a sampler with other settings; of a sampler around another one, those of the inner one."""
    if isinstance(own.get('sampler'), dict):
        return {**own, 'sampler': _changed_part(own['sampler'], settings)}
    name, function = sampler_named(settings.get('sampler') or own['type'])
    if name != own['type'].split('.')[-1]:
        own = {'type': name, **_steps(own)}
    own |= _steps(settings)
    return own if _has_steps(function) else {key: value for key, value in own.items() if key != 'steps'}


def changed(
    sampler: Callable[..., Any], guidance: Callable[..., float], history: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Sampler, guidance and history that are built, with other settings."""
    if settings.get('guidance') is not None:
        guidance = VQGuidanceRegistry.build(_constant(settings['guidance']), 'guidance')
    found: dict[str, Any] = {'sampler': _changed_sampler(sampler, settings), 'guidance': guidance}
    return found | {'history': history if settings.get('history') is None else int(settings['history'])}


def _changed_sampler(sampler: Callable[..., Any], settings: Mapping[str, Any]) -> Callable[..., Any]:
    """The same of a sampler that is built."""
    function, own = getattr(sampler, 'func', sampler), dict(getattr(sampler, 'keywords', {}))
    if callable(own.get('sampler')):
        return functools.partial(function, **{**own, 'sampler': _changed_sampler(own['sampler'], settings)})
    if settings.get('sampler') is not None:
        other = sampler_named(settings['sampler'])[1]
        own = own if other is function else _steps(own)
        function = other
    own |= _steps(settings)
    if not _has_steps(function):
        own.pop('steps', None)
    return functools.partial(function, **own)


def sampler_names() -> list[str]:
    return [other for other in VQDiffusionSamplerRegistry.names() if not _wraps(VQDiffusionSamplerRegistry.parse(other)[1])]


def sampler_named(name: str) -> tuple[str, Callable[..., Any]]:
    """A sampler by its name, whatever the case of its letters: ``ddim`` is ``DDIM``."""
    known = sampler_names()
    alike = [other for other in known if other.lower() == name.split('.')[-1].lower().replace('_', '')]
    if not alike:
        raise UserError(f"there is no sampler '{name}'{nearest(name, known)}", f'There are: {listing(known)}.')
    return alike[0], VQDiffusionSamplerRegistry.parse(alike[0])[1]


def _constant(scale: float) -> dict[str, Any]:
    return {'type': 'ConstantGuidance', 'scale': float(scale)}


def _steps(settings: Mapping[str, Any]) -> dict[str, int]:
    return {} if settings.get('steps') is None else {'steps': int(settings['steps'])}


def _wraps(sampler: Callable[..., Any]) -> bool:
    """Whether it is one around another one, which a name alone does not give."""
    return 'sampler' in inspect.signature(sampler).parameters


def _has_steps(sampler: Callable[..., Any]) -> bool:
    return 'steps' in inspect.signature(sampler).parameters
