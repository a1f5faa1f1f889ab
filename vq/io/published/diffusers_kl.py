"""Autoencoders in the layout of diffusers' ``AutoencoderKL``: a folder of config.json and weights. In and out.

A latent of theirs is normalized as (z - shift_factor) scaling_factor, or, with statistics per channel, as
(z - latents_mean) / latents_std scaling_factor. Under our names these are the statistics of the tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError, listing
from vq.core.reading import read_json
from vq.io.published.autoencoder import assemble, get
from vq.io.published.keymap import Converted, Rule, State, Words, map_keys, rename

NESTS = ('state_dict',)
CONFIG = 'config.json'
WEIGHTS = 'diffusion_pytorch_model'
STATISTICS = 'statistics.'
LARGEST = 100_000  # bytes of config.json; theirs take about 700

RESIDUAL = {'norm1': 'norm1', 'conv1': 'conv1', 'norm2': 'norm2', 'conv2': 'conv2', 'conv_shortcut': 'shortcut'}
ATTENTION = {'group_norm': 'norm', 'to_q': 'q', 'to_k': 'k', 'to_v': 'v', 'to_out.0': 'proj'}
OLD_ATTENTION = {'query': 'q', 'key': 'k', 'value': 'v', 'proj_attn': 'proj'}  # names of diffusers before 0.15
VOCABULARY: dict[str, Words] = {
    'side': {'encoder': 'encoder', 'decoder': 'decoder'},
    'residual': RESIDUAL,
    'attention': {**ATTENTION, **OLD_ATTENTION},
    'end': {'conv_in': 'stem', 'conv_norm_out': 'norm_out', 'conv_out': 'conv_out'},
    'connector': {'quant_conv': 'post_encode', 'post_quant_conv': 'pre_decode'},
}
PAIRS = (  # theirs, ours: both count the levels of a decoder from the lowest resolution
    ('encoder.down_blocks.{i}.resnets.{j}.{residual}.{leaf}', 'encoder.levels.{i}.blocks.{j}.{residual}.{leaf}'),
    ('encoder.down_blocks.{i}.attentions.{j}.{attention}.{leaf}', 'encoder.levels.{i}.attentions.{j}.{attention}.{leaf}'),
    ('encoder.down_blocks.{i}.downsamplers.0.conv.{leaf}', 'encoder.levels.{i}.resample.conv.{leaf}'),
    ('decoder.up_blocks.{i}.resnets.{j}.{residual}.{leaf}', 'decoder.levels.{i}.blocks.{j}.{residual}.{leaf}'),
    ('decoder.up_blocks.{i}.attentions.{j}.{attention}.{leaf}', 'decoder.levels.{i}.attentions.{j}.{attention}.{leaf}'),
    ('decoder.up_blocks.{i}.upsamplers.0.conv.{leaf}', 'decoder.levels.{i}.resample.conv.{leaf}'),
    ('{side}.mid_block.resnets.0.{residual}.{leaf}', '{side}.refine.0.{residual}.{leaf}'),
    ('{side}.{end}.{leaf}', '{side}.{end}.{leaf}'),
    ('{connector}.{leaf}', '{connector}.conv.{leaf}'),
)
MIDDLE = '{side}.mid_block.attentions.0.{attention}.{leaf}', '{side}.refine.1.{attention}.{leaf}'
LAST = '{side}.mid_block.resnets.1.{residual}.{leaf}'


def pairs(attention: bool) -> Iterator[tuple[str, str]]:
    """(theirs, ours) of an autoencoder with or without attention at the lowest resolution."""
    yield from PAIRS
    if attention:
        yield MIDDLE
    yield LAST, f'{{side}}.refine.{2 if attention else 1}.{{residual}}.{{leaf}}'


def locate(file: Path) -> tuple[Path, tuple[dict[str, Any]]]:
    """The file of weights of a folder, and what ``convert`` needs besides: config.json. A file of weights in it will do."""
    folder = file if file.is_dir() else file.parent
    names = [f'{WEIGHTS}.safetensors', f'{WEIGHTS}.bin'] if file.is_dir() else [file.name]
    weights = next((path for name in names if (path := folder / name).is_file()), None)
    if weights is None:
        raise UserError(f'{folder} holds no {listing(names)}', 'Give the folder of an AutoencoderKL, often called vae.')
    try:
        settings = read_json(folder / CONFIG, LARGEST)
    except (OSError, ValueError) as error:
        raise UserError(f'{folder / CONFIG} cannot be read: {error}', 'It stands beside the weights.') from error
    if not isinstance(settings, dict) or settings.get('_class_name') != 'AutoencoderKL':
        kind = settings.get('_class_name') if isinstance(settings, dict) else None
        raise UserError(f'{folder / CONFIG} describes a {kind!s:.60}, not an AutoencoderKL', 'Give the folder of one.')
    return weights, (settings,)


def convert(
    state: State,
    settings: Mapping[str, Any],
    *,
    image_size: int | None = None,
    kl_weight: float = 1e-6,
    statistics: bool = True,
) -> Converted:
    """``settings``: the contents of config.json. ``image_size``: None is its sample_size. ``kl_weight`` is for further
    training. ``statistics``: whether its factors become the statistics of the latents."""
    _check(settings)
    rules = [_rule(theirs, ours, 4) for theirs, ours in pairs(any('.mid_block.attentions.' in key for key in state))]
    mapped, dropped = map_keys(state, rules, VOCABULARY)
    size = settings.get('sample_size', 32) if image_size is None else image_size
    groups = _groups(settings, mapped)
    converted = assemble(mapped, None, size, dropped, encoder=groups, decoder=groups)
    converted.tokenizer['kl_weight'] = kl_weight
    if statistics:
        channels = int(get(mapped, 'decoder.stem.weight').shape[1])
        mean, deviation = _statistics(settings, channels)
        converted.tensors.update({f'tokenizer.{STATISTICS}mean': mean, f'tokenizer.{STATISTICS}deviation': deviation})
    return converted


def _rule(source: str, target: str, dims: int) -> Rule:
    """Weights of their attention are of linear layers, ours of 1x1 convolutions."""
    return rename(source, target, dims if '{attention}' in source else None)


def _check(settings: Mapping[str, Any]) -> None:
    """Refuse what shapes do not show and our networks do not have."""
    kinds = {*settings.get('down_block_types', ()), *settings.get('up_block_types', ())}
    known = {f'{kind}{side}Block2D' for kind in ('', 'Attn') for side in ('DownEncoder', 'UpDecoder')}
    if kinds - known or settings.get('act_fn', 'silu') != 'silu':
        raise UserError(
            f'it has {listing(sorted(map(str, kinds - known))) or "the activation " + str(settings.get("act_fn"))}',
            f'Its blocks must be {listing(sorted(known))}, its activation silu.',
        )


def _groups(settings: Mapping[str, Any], state: State) -> dict[str, Any]:
    groups = settings.get('norm_num_groups', 32)
    norms = {len(value) for key, value in state.items() if re.search(r'\.norm(1|2|_out)?\.weight$', key)}
    if type(groups) is not int or groups < 1 or any(width % groups for width in norms):
        raise UserError(f'norm_num_groups is {groups!s:.20}, for norms of {sorted(norms)} channels', 'config.json is damaged.')
    return {} if groups == 32 else {'norm_groups': groups}


def _statistics(settings: Mapping[str, Any], channels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation (C,) by which their pipelines normalize latents."""
    try:
        scale = float(settings.get('scaling_factor') or 1.0)
        means, deviations = settings.get('latents_mean'), settings.get('latents_std')
        if (means is None) != (deviations is None):
            raise ValueError('one of latents_mean and latents_std is missing')
        shift = float(settings.get('shift_factor') or 0.0)
        mean = torch.full((channels,), shift) if means is None else torch.tensor(means, dtype=torch.float32)
        deviation = torch.ones(channels) if deviations is None else torch.tensor(deviations, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f'its factors of latents cannot be read: {error}', 'Leave them out: statistics=False.') from error
    good = mean.shape == deviation.shape == (channels,) and bool((mean.isfinite() & deviation.isfinite()).all())
    if not good or not scale > 0 or not bool((deviation > 0).all()):
        raise UserError(
            f'its factors of latents are not {channels} finite means and positive deviations',
            'Leave them out: statistics=False.',
        )
    return mean, deviation / scale


# the other direction

FIXED = {'refine': True, 'refine_blocks': 2, 'resample_last': False, 'norm': 'group', 'conv_bias': True}
ENCODER = {**FIXED, 'downsample': 'conv', 'out_kernel_size': 3}
DECODER = {**FIXED, 'upsample': 'nearest', 'output': 'linear', 'adaptive_norm': False}
SHARED = ('width', 'multipliers', 'attention_levels', 'refine_attention', 'norm_groups')


def exported(
    config: Mapping[str, Any], state: State, image_size: int | tuple[int, ...]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The contents of config.json, and the tensors, of a KLAutoencoder with a complete ``config``."""
    encoder = _encoder_of(config)
    own = {key: value for key, value in state.items() if not key.startswith((STATISTICS, 'perturbation.'))}
    rules = [_rule(ours, theirs, 2) for theirs, ours in pairs(encoder['refine_attention'])]
    back: dict[str, Words] = {name: {ours: theirs for theirs, ours in words.items()} for name, words in VOCABULARY.items()}
    back['attention'] = {ours: theirs for theirs, ours in ATTENTION.items()}
    tensors, _ = map_keys(own, rules, back)
    for name in ('quant_conv', 'post_quant_conv'):
        shape = tuple(tensors[f'{name}.weight'].shape) if f'{name}.weight' in tensors else (1, 1, 1, 1)
        if shape[0] != shape[1] or shape[2:] != (1, 1):
            raise UserError(
                f'{name} is a convolution of {shape}, and AutoencoderKL has a 1 x 1 one that keeps the width',
                'Such a network has no such layout.',
            )
    levels, attended = len(encoder['multipliers']), encoder['attention_levels']
    kinds = ['Attn' if level in attended else '' for level in range(levels)]
    settings = {
        '_class_name': 'AutoencoderKL',
        '_diffusers_version': '0.35.0',
        'act_fn': 'silu',
        'block_out_channels': [encoder['width'] * multiplier for multiplier in encoder['multipliers']],
        'down_block_types': [f'{kind}DownEncoderBlock2D' for kind in kinds],
        'up_block_types': [f'{kind}UpDecoderBlock2D' for kind in reversed(kinds)],
        'force_upcast': True,
        'in_channels': tensors['encoder.conv_in.weight'].shape[1],
        'out_channels': tensors['decoder.conv_out.weight'].shape[0],
        'latent_channels': tensors['decoder.conv_in.weight'].shape[1],
        'layers_per_block': encoder['residual_blocks'],
        'mid_block_add_attention': encoder['refine_attention'],
        'norm_num_groups': encoder['norm_groups'],
        'sample_size': image_size if isinstance(image_size, int) else list(image_size),
        'use_quant_conv': 'post_encode.conv.weight' in own,
        'use_post_quant_conv': 'pre_decode.conv.weight' in own,
        **_factors(state),
    }
    return settings, {key: value.detach().contiguous() for key, value in tensors.items()}


def _encoder_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of the encoder, which the decoder mirrors; an error if theirs have no such networks."""
    from vq.core.parameters import parameters_of
    from vq.registries import VQDecoderRegistry, VQEncoderRegistry

    found: list[dict[str, Any]] = []
    for registry, name, kind, fixed in (
        (VQEncoderRegistry, 'encoder', 'ConvEncoder', ENCODER),
        (VQDecoderRegistry, 'decoder', 'ConvDecoder', DECODER),
    ):
        part = dict(config.get(name) or {})
        if str(config.get('type')).split('.')[-1] != 'KLAutoencoder' or str(part.get('type')).split('.')[-1] != kind:
            raise UserError(
                f'a {config.get("type")} with a {part.get("type")} as {name} has no layout of diffusers',
                'Only a KLAutoencoder with a ConvEncoder and a ConvDecoder has one.',
            )
        defaults = {key: one.default for key, one in parameters_of(registry.parse(kind)[1]).items() if not one.required}
        whole = {**defaults, **part, 'multipliers': tuple(part.get('multipliers', defaults['multipliers']))}
        whole['attention_levels'] = tuple(whole['attention_levels'])
        odd = [key for key, value in fixed.items() if whole[key] != value]
        if odd:
            raise UserError(
                f'{name}.{odd[0]} is {whole[odd[0]]}, and AutoencoderKL has {fixed[odd[0]]}', 'It has no such layout.'
            )
        found.append(whole)
    encoder, decoder = found
    odd = [key for key in SHARED if encoder[key] != decoder[key]]
    stem = decoder['stem_multiplier'] in (None, decoder['multipliers'][-1])
    narrow = [encoder['width'] * multiplier for multiplier in encoder['multipliers']]
    if odd or not stem or decoder['residual_blocks'] != encoder['residual_blocks'] + 1:
        raise UserError(
            f'encoder and decoder differ in {listing(odd) or "their blocks"}',
            'AutoencoderKL has the same levels on both sides, and one more residual block in each of the decoder.',
        )
    if any(width % encoder['norm_groups'] for width in narrow):
        raise UserError(f'{encoder["norm_groups"]} groups do not divide {narrow} channels', 'AutoencoderKL has no such norms.')
    return encoder


def _factors(state: State) -> dict[str, Any]:
    """The statistics of the latents under their names."""
    mean, deviation = state.get(f'{STATISTICS}mean'), state.get(f'{STATISTICS}deviation')
    if mean is None or deviation is None:
        return {'scaling_factor': 1.0, 'shift_factor': None, 'latents_mean': None, 'latents_std': None}
    if mean.ndim > 1:
        raise UserError(
            'its latents have statistics per element, and AutoencoderKL has them per channel at most',
            'Compute them per channel: vq.tools.latents --per channel.',
        )
    means, deviations = mean.double().tolist(), deviation.double().tolist()
    if len({*means}) == len({*deviations}) == 1:
        one = {'scaling_factor': 1 / deviations[0], 'shift_factor': means[0] or None}
        return {**one, 'latents_mean': None, 'latents_std': None}
    return {'scaling_factor': 1.0, 'shift_factor': None, 'latents_mean': means, 'latents_std': deviations}
