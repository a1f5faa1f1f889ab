"""The config of a convolutional autoencoder, inferred from the shapes of its tensors under our names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from vq.core.errors import UserError
from vq.io.published.keymap import Converted, State

HINT = 'The file is not of that kind, or it is damaged.'
CRITIC = 'discriminator.'


def assemble(
    mapped: State,
    quantizer: dict[str, Any] | None,
    image_size: int,
    dropped: dict[str, list[str]],
    *,
    encoder: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
    critic_keys: Callable[[State], dict[str, Tensor]] | None = None,
) -> Converted:
    """Config of a tokenizer, and tensors under the keys of a task. In ``mapped`` keys of the critic begin with
    ``discriminator.``; all others are the tokenizer's.

    ``quantizer=None`` makes a KL autoencoder. ``encoder`` and ``decoder`` are settings that shapes do not determine.
    ``critic_keys`` renames the tensors of the critic (default: a PatchGAN's).
    """
    from vq.io.published.discriminators import patchgan_keys

    own = {key: value for key, value in mapped.items() if not key.startswith(CRITIC)}
    critic = {key.removeprefix(CRITIC): value for key, value in mapped.items() if key.startswith(CRITIC)}
    tensors = {f'tokenizer.{key}': value for key, value in own.items()}
    if critic:
        tensors |= {f'{CRITIC}{key}': value for key, value in (critic_keys or patchgan_keys)(critic).items()}
    config = _tokenizer(own, quantizer, image_size, encoder or {}, decoder or {})
    return Converted(config, tensors, image_size, dropped)


def _tokenizer(
    state: State,
    quantizer: dict[str, Any] | None,
    image_size: int,
    encoder_settings: Mapping[str, Any],
    decoder_settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The config of the tokenizer with these tensors and the given quantizer."""
    encoder, decoder = {**_encoder(state), **encoder_settings}, {**_decoder(state), **decoder_settings}
    config: dict[str, Any] = {'type': 'KLAutoencoder' if quantizer is None else 'VQGAN', 'encoder': encoder}
    if quantizer is not None:
        config['quantizer'] = quantizer
    for name in ('post_encode', 'pre_decode'):
        if any(key.startswith(f'{name}.') for key in state):
            config[name] = _connector(state, name)
    config['decoder'] = decoder
    cell = 2 ** (len(encoder['multipliers']) - (not encoder.get('resample_last', False)))
    if type(image_size) is not int or image_size < 1 or image_size % cell:
        raise UserError(
            f'image_size is {image_size}, and the encoder makes cells of {cell} pixels',
            f'Give a multiple of {cell}: --options image_size:{cell * 16}.',
        )
    return config


def codebook_shape(state: State, quantizer: str = 'quantizer') -> tuple[int, int]:
    """K codes of C channels."""
    weight = get(state, f'{quantizer}.codebook.weight')
    if weight.ndim != 2:
        raise UserError(f'the codebook has the shape {tuple(weight.shape)}, and K x C is needed', HINT)
    return int(weight.shape[0]), int(weight.shape[1])


def get(state: State, key: str) -> Tensor:
    """The tensor of ``key``; a missing one is an error."""
    if key not in state:
        raise UserError(f"there is no tensor for '{key}'", HINT)
    return state[key]


def level_count(state: State, prefix: str) -> int:
    """The number of parts ``prefix0``, ``prefix1``, ...; a gap in the numbers is an error."""
    numbers = {int(found[1]) for key in state if (found := re.match(rf'{re.escape(prefix)}(\d+)\.', key))}
    if numbers != set(range(len(numbers))):
        raise UserError(f"the parts below '{prefix}' are numbered {sorted(numbers)[:20]}, with gaps", HINT)
    return len(numbers)


def _encoder(state: State) -> dict[str, Any]:
    stem, out = get(state, 'encoder.stem.weight'), get(state, 'encoder.conv_out.weight')
    levels = [_level(state, f'encoder.levels.{index}') for index in range(level_count(state, 'encoder.levels.'))]
    width = int(stem.shape[0])
    return dict(
        type='ConvEncoder',
        width=width,
        multipliers=_multipliers(levels, width),
        residual_blocks=_blocks(levels),
        attention_levels=[index for index, level in enumerate(levels) if level['attention']],
        **_refine(state, 'encoder'),
        in_channels=int(stem.shape[1]),
        out_channels=int(out.shape[0]),
        **({} if 'encoder.stem.bias' in state else {'conv_bias': False}),
        **({} if out.shape[-1] == 3 else {'out_kernel_size': int(out.shape[-1])}),
    )


def _decoder(state: State) -> dict[str, Any]:
    """Our ConvDecoder counts multipliers and attention from full resolution, as the encoder does, but its levels from the
    lowest resolution."""
    stem, out = get(state, 'decoder.stem.weight'), get(state, 'decoder.conv_out.weight')
    levels = [_level(state, f'decoder.levels.{index}') for index in range(level_count(state, 'decoder.levels.'))][::-1]
    width = int(get(state, 'encoder.stem.weight').shape[0])
    multipliers = _multipliers(levels, width)
    config = dict(
        type='ConvDecoder',
        width=width,
        multipliers=multipliers,
        residual_blocks=_blocks(levels),
        attention_levels=[index for index, level in enumerate(levels) if level['attention']],
        **_refine(state, 'decoder'),
        in_channels=int(stem.shape[1]),
        out_channels=int(out.shape[0]),
    )
    if stem.shape[0] != width * multipliers[-1]:
        config['stem_multiplier'] = _divided(int(stem.shape[0]), width, 'decoder.stem')
    if 'decoder.levels.0.blocks.0.conv1.bias' not in state:
        config['conv_bias'] = False
    if any(key.startswith('decoder.adaptive.') for key in state):
        config['adaptive_norm'] = True
    return config


def _level(state: State, prefix: str) -> dict[str, Any]:
    blocks = level_count(state, f'{prefix}.blocks.')
    attentions = level_count(state, f'{prefix}.attentions.')
    if attentions not in (0, blocks):
        raise UserError(f"'{prefix}' has {blocks} residual blocks and {attentions} attentions", HINT)
    return {
        'width': int(get(state, f'{prefix}.blocks.0.conv1.weight').shape[0]),
        'blocks': blocks,
        'attention': attentions > 0,
        'where': prefix,
    }


def _multipliers(levels: list[dict[str, Any]], width: int) -> list[int]:
    if not levels:
        raise UserError('there are no levels of residual blocks', HINT)
    return [_divided(level['width'], width, level['where']) for level in levels]


def _divided(wide: int, width: int, where: str) -> int:
    if wide % width:
        raise UserError(f"'{where}' has {wide} channels, not a multiple of the {width} of the first convolution", HINT)
    return wide // width


def _blocks(levels: list[dict[str, Any]]) -> int:
    counts = {level['blocks'] for level in levels}
    if len(counts) != 1:
        raise UserError(f'levels have {sorted(counts)} residual blocks, and one number for all is needed', HINT)
    return int(counts.pop())


def _refine(state: State, side: str) -> dict[str, Any]:
    """Settings of the residual blocks at the lowest resolution, with or without attention between them."""
    count = level_count(state, f'{side}.refine.')
    blocks = sum(f'{side}.refine.{index}.conv1.weight' in state for index in range(count))
    if not blocks:
        return {'refine': False}
    attention = any(f'{side}.refine.{index}.q.weight' in state for index in range(count))
    return {'refine_blocks': blocks, 'refine_attention': attention}


def _connector(state: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """One convolution, or a chain of them."""
    count = level_count(state, f'{name}.convs.')
    if not count:
        weight = get(state, f'{name}.conv.weight')
        return {
            'type': 'ConvConnector',
            'in_channels': int(weight.shape[1]),
            'out_channels': int(weight.shape[0]),
            'kernel_size': int(weight.shape[-1]),
        }
    weights = [get(state, f'{name}.convs.{index}.weight') for index in range(count)]
    return {
        'type': 'ChainConnector',
        'in_channels': int(weights[0].shape[1]),
        'out_channels': int(weights[-1].shape[0]),
        'widths': [int(weight.shape[0]) for weight in weights[:-1]],
    }
