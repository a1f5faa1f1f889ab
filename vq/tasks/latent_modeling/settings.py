"""Settings of drawing that commands give to generators of continuous tokens; each takes those that it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.config import plain
from vq.core.errors import UserError, listing
from vq.core.records import Prediction
from vq.interfaces import ContinuousGenerator, Drive, TokenDrawing, TokenHead
from vq.interfaces.drawing import Setting
from vq.registries import VQContinuousGeneratorRegistry, VQDiffusionSamplerRegistry, VQGuidanceRegistry, VQTokenHeadRegistry
from vq.sampling.paths import BetaPath
from vq.tasks.diffusion.settings import last_part, sampler_named, sampler_names

SCHEDULES = {'constant': 'ConstantGuidance', 'linear': 'LinearGuidance', 'cosine': 'CosineGuidance'}
LEAST = {'steps': 1, 'num_iter': 1, 'temperature': 0}


def taken(generator: Mapping[str, Any] | ContinuousGenerator) -> tuple[str, ...]:
    """The names of the settings that a generator and its head use. ``generator``: the model, or its config."""
    kinds: list[type[ContinuousGenerator] | type[TokenHead]]
    if isinstance(generator, ContinuousGenerator):
        head = getattr(generator, 'head', None)
        kinds = [type(generator), *([type(head)] if isinstance(head, TokenHead) else [])]
    else:
        kinds = [VQContinuousGeneratorRegistry.parse(generator['type'])[1]]
        if generator.get('head') is not None:
            kinds.append(VQTokenHeadRegistry.parse(generator['head']['type'])[1])
    return tuple(sorted({name for kind in kinds for name in kind.takes}))


def check(settings: Mapping[str, Any], takes: tuple[str, ...], guides: bool) -> None:
    """Raise for settings that the generator does not use. ``guides``: there is a condition to be guided by."""
    unknown = [name for name in settings if name not in takes]
    if unknown:
        raise UserError(f"this generator does not use '{unknown[0]}'", f'It uses: {listing(takes)}.')
    for name, least in LEAST.items():
        if settings.get(name) is not None and not settings[name] >= least:
            raise UserError(f'{name} is {settings[name]:g}', f'Give {least} or more.')
    if settings.get('cfg_schedule') not in (None, *SCHEDULES):
        raise UserError(f"cfg_schedule is '{settings['cfg_schedule']}'", f'It is one of: {listing(SCHEDULES)}.')
    if settings.get('guidance') not in (None, 1) and not guides:
        raise UserError(
            f'guidance is {settings["guidance"]:g}, and the generator learned no condition to be guided by',
            'Leave it out. Guidance needs a conditioner, such as ClassConditioner.',
        )


def own(config: Mapping[str, Any]) -> dict[str, Setting]:
    """The settings that ``changed_config`` takes for this config."""
    sampler, guidance = plain(config.get('sampler')) or {}, plain(config['guidance'])
    names = {kind: name for name, kind in SCHEDULES.items()}
    found = {
        'sampler': Setting(last_part(sampler.get('type', '')) or None, tuple(sampler_names())),
        'steps': Setting(sampler.get('steps')),
        'guidance': Setting(guidance.get('scale')),
        'cfg_schedule': Setting(names.get(last_part(guidance['type'])), tuple(SCHEDULES)),
        'temperature': Setting(config.get('temperature', 1.0)),
        'num_iter': Setting(config.get('num_iter', TokenDrawing.num_iter)),
    }
    left_out = () if config.get('conditioner') is not None else ('guidance', 'cfg_schedule')
    return {name: found[name] for name in taken(config['generator']) if name in found and name not in left_out}


def changed_config(config: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Put settings into the config of a task; returns those that the latents depend on."""
    takes = taken(config['generator'])
    check(settings, takes, config.get('conditioner') is not None)
    if 'sampler' in takes:
        config['sampler'] = _sampler(plain(config['sampler']), settings)
    config['guidance'] = _guidance(plain(config['guidance']), settings)
    for name in ('temperature', 'num_iter'):
        if settings.get(name) is not None:
            config[name] = settings[name]
    names = ('sampler', 'guidance', 'temperature', 'num_iter')
    return {name: plain(config[name]) for name in names if config.get(name) is not None}


def changed(drawing: TokenDrawing, settings: Mapping[str, Any], described: Mapping[str, Any]) -> TokenDrawing:
    """Other settings than ``drawing`` has, which ``described`` says as plain data."""
    sampler, guidance = drawing.sampler, drawing.guidance
    if settings.keys() & {'sampler', 'steps'}:
        sampler = VQDiffusionSamplerRegistry.build(_sampler(dict(described['sampler']), settings), 'sampler')
    if settings.keys() & {'guidance', 'cfg_schedule'}:
        guidance = VQGuidanceRegistry.build(_guidance(dict(described['guidance']), settings), 'guidance')
    temperature, num_iter = (settings.get(name) for name in ('temperature', 'num_iter'))
    return TokenDrawing(
        sampler,
        guidance,
        drawing.temperature if temperature is None else float(temperature),
        drawing.num_iter if num_iter is None else int(num_iter),
    )


def describe(drawing: TokenDrawing) -> dict[str, Any]:
    """Sampler and guidance as plain data."""
    return {'sampler': _as_config(drawing.sampler), 'guidance': _as_config(drawing.guidance)}


def _as_config(function: Callable[..., Any] | None) -> dict[str, Any]:
    if function is None:
        return {}
    plain_function = getattr(function, 'func', function)
    for registry in (VQDiffusionSamplerRegistry, VQGuidanceRegistry):
        registry.load_package()
        for name, part in registry.data.items():
            if part is plain_function:
                return {'type': name, **getattr(function, 'keywords', {})}
    raise UserError(f'{plain_function.__name__} is in no registry', 'Register it, so that settings can be changed.')


def _sampler(own: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    name = sampler_named(settings.get('sampler') or own['type'])[0]
    if name != str(own['type']).split('.')[-1]:
        own = {'type': name, **({'steps': own['steps']} if 'steps' in own else {})}
    return own | ({} if settings.get('steps') is None else {'steps': int(settings['steps'])})


def _guidance(own: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """``cfg_schedule`` keeps the scale, and ``guidance`` the schedule."""
    schedule, scale = settings.get('cfg_schedule'), settings.get('guidance')
    if schedule is not None and SCHEDULES[schedule] != str(own['type']).split('.')[-1]:
        own = {'type': SCHEDULES[schedule], 'scale': own.get('scale', 1.0)}
    return own if scale is None else own | {'scale': float(scale)}


def adds_noise(sampler: Callable[..., Iterator[Tensor]]) -> bool:
    """Whether a sampler draws noise in its steps. It is run on one number."""
    asked: list[int] = []

    def denoise(z: Tensor, t: float, _: Condition | None, /) -> Prediction:
        return Prediction(z, 'v', torch.zeros_like(z))

    def noise(step: int) -> Tensor:
        asked.append(step)
        return torch.zeros(1, 1)

    return any(asked for _ in sampler(torch.zeros(1, 1), Drive(denoise, BetaPath(), None, noise)))


def check_temperature(drawing: TokenDrawing) -> None:
    """A sampler without noise has none to scale."""
    if drawing.temperature != 1 and drawing.sampler is not None and not adds_noise(drawing.sampler):
        name = _as_config(drawing.sampler)['type']
        raise UserError(
            f'temperature is {drawing.temperature:g}, and the sampler {name} adds no noise that it could scale',
            'Leave it out, or take the sampler Ancestral or SDE, or DDIM with eta above 0.',
        )
