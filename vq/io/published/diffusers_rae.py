"""Representation autoencoders in diffusers' layout, AutoencoderRAE: the encoder, the decoder and the statistics of latents.

The encoder has the parameter names of transformers 5, whose class AutoencoderRAE builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.core.specs import size_of
from vq.io.published.autoencoder import get
from vq.io.published.keymap import Rule, State, Words, drop, map_keys, rename, split
from vq.io.published.rae_decoder import NORMALISATION

ENCODER = 'encoder.teacher.network.'
STATISTICS = 'statistics.'
SMALL = 1e-5  # what AutoencoderRAE adds to the deviation
HEAD = 64  # channels of a head of its encoders
PATCH = 14
SIDE = 37  # its positions are those of 37 x 37 patches
REGISTERS = 4
GRID = 16  # cells a side of the decoder: AutoencoderRAE stretches the positions of other grids

_BLOCKS = {
    'attn.proj': 'attention.o_proj',
    'norm1': 'norm1',
    'norm2': 'norm2',
    'mlp.fc1': 'mlp.fc1',
    'mlp.fc2': 'mlp.fc2',
}
_LAYERS = {
    'proj': 'attention.to_out.0',
    'mlp_in': 'intermediate.dense',
    'mlp_out': 'output.dense',
    'norm_attention': 'layernorm_before',
    'norm_mlp': 'layernorm_after',
}
VOCABULARY: dict[str, Words] = {'block': _BLOCKS, 'layer': _LAYERS, 'scale': {'ls1.gamma': '1', 'ls2.gamma': '2'}}
BLOCK, LAYER = 'encoder.encoder.layer.{i}.', 'decoder.decoder_layers.{i}.'
RULES: tuple[Rule, ...] = (
    rename(f'{ENCODER}cls_token', 'encoder.embeddings.cls_token'),
    rename(f'{ENCODER}reg_token', 'encoder.embeddings.register_tokens'),
    rename(f'{ENCODER}pos_embed', 'encoder.embeddings.position_embeddings'),
    rename(f'{ENCODER}patch_embed.proj.{{leaf}}', 'encoder.embeddings.patch_embeddings.projection.{leaf}'),
    split(f'{ENCODER}blocks.{{i}}.attn.qkv.{{leaf}}', [f'{BLOCK}attention.{part}_proj.{{leaf}}' for part in 'qkv']),
    rename(f'{ENCODER}blocks.{{i}}.{{scale}}', f'{BLOCK}layer_scale{{scale}}.lambda1'),
    rename(f'{ENCODER}blocks.{{i}}.{{block}}.{{leaf}}', f'{BLOCK}{{block}}.{{leaf}}'),
    drop(f'{ENCODER}norm.{{leaf}}', 'scale and shift of the last norm'),
    rename('decoder.class_token', 'decoder.trainable_cls_token'),
    rename('decoder.stem.{leaf}', 'decoder.decoder_embed.{leaf}'),
    split('decoder.blocks.{i}.qkv.{leaf}', [f'{LAYER}attention.to_{part}.{{leaf}}' for part in 'qkv']),
    rename('decoder.blocks.{i}.{layer}.{leaf}', f'{LAYER}{{layer}}.{{leaf}}'),
    rename('decoder.norm_out.{leaf}', 'decoder.decoder_norm.{leaf}'),
    rename('decoder.out.{leaf}', 'decoder.decoder_pred.{leaf}'),
)
# what AutoencoderRAE does, in our settings
FIXED: dict[str, Mapping[str, Any]] = {
    'encoder': {'type': 'RepresentationEncoder', 'layers': -1, 'norm': True, 'eps': 1e-6, 'antialias': False},
    'encoder.teacher': {'type': 'DINOv2Teacher', 'patch_size': PATCH, 'registers': REGISTERS},
    'decoder': {'type': 'MAEDecoder', 'class_token': 'learned', 'masked': False},
}


def exported(
    config: Mapping[str, Any], state: State, image_size: int | tuple[int, ...]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The contents of config.json, and the tensors, of a RepresentationAutoencoder. ``state`` has its frozen encoder, too."""
    encoder, teacher, decoder = (_checked(config, place) for place in FIXED)
    height, width = size_of(image_size)
    cell, positions = encoder['downsampling'] or PATCH, get(state, f'{ENCODER}pos_embed')
    side = decoder['grid']
    odd = [
        (height != width or height % cell, f'images are {height} x {width}', 'squares'),
        (side != GRID or side * cell != height, f'positions are of {side} x {side} cells', 'those of 16 x 16, its image'),
        (teacher['dimension'] != HEAD * teacher['heads'], f'the encoder has {teacher["heads"]} heads', 'one for 64 channels'),
        (positions.shape[1] != 1 + SIDE * SIDE, f'the encoder has {positions.shape[1]} positions', 'those of its file'),
    ]
    for wrong, what, wanted in odd:
        if wrong:
            raise UserError(f'{what}, and AutoencoderRAE has {wanted}', 'Such an autoencoder has no such layout.')
    own = {key: value for key, value in state.items() if key.startswith((ENCODER, 'decoder.'))}
    tensors, _ = map_keys(own, RULES, VOCABULARY)
    token = 'decoder.trainable_cls_token'
    tensors[token] = tensors[token].view(1, 1, -1)
    tensors['encoder.embeddings.mask_token'] = torch.zeros(1, teacher['dimension'])
    for leaf in ('weight', 'bias'):
        rows = tensors[f'decoder.decoder_pred.{leaf}']  # (colour, row, column) here, (row, column, colour) there
        tensors[f'decoder.decoder_pred.{leaf}'] = rows.view(3, cell, cell, *rows.shape[1:]).movedim(0, 2).flatten(0, 2)
    mean, deviation = NORMALISATION.values()
    tensors['encoder_mean'], tensors['encoder_std'] = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, deviation))
    first, second = state.get(f'{STATISTICS}mean'), state.get(f'{STATISTICS}deviation')
    known = first is not None and second is not None
    if first is not None and second is not None:
        shape = (-1, 1, 1) if first.ndim == 1 else first.shape
        first, second = first.float().view(shape), second.float().view(shape) - SMALL
    tensors['_latents_mean'] = torch.zeros(1) if first is None else first
    tensors['_latents_std'] = torch.ones(1) if second is None else second
    noise = config.get('perturbation') or {}
    settings = {
        '_class_name': 'AutoencoderRAE',
        '_diffusers_version': '0.42.1',
        'encoder_type': 'dinov2',
        'encoder_hidden_size': teacher['dimension'],
        'encoder_patch_size': PATCH,
        'encoder_num_hidden_layers': teacher['depth'],
        'encoder_input_size': height // cell * PATCH,
        'encoder_norm_mean': list(mean),
        'encoder_norm_std': list(deviation),
        'decoder_hidden_size': decoder['dim'],
        'decoder_num_hidden_layers': decoder['depth'],
        'decoder_num_attention_heads': decoder['heads'],
        'decoder_intermediate_size': tensors['decoder.decoder_layers.0.intermediate.dense.bias'].shape[0],
        'patch_size': cell,
        'image_size': height,
        'num_channels': 3,
        'latents_mean': tensors['_latents_mean'].tolist() if known else None,
        'latents_std': tensors['_latents_std'].tolist() if known else None,
        'noise_tau': noise.get('tau', 0.8) if str(noise.get('type')).split('.')[-1] == 'GaussianNoise' else 0.0,
        'reshape_to_2d': True,
        'use_encoder_loss': False,
        'scaling_factor': 1.0,
    }
    return settings, {key: value.detach().contiguous() for key, value in tensors.items()}


def _checked(config: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The settings of a part, with the defaults of its type; an error if AutoencoderRAE has others."""
    from vq.core.parameters import parameters_of
    from vq.registries import VQDecoderRegistry, VQEncoderRegistry, VQTeacherRegistry

    part = config
    for name in place.split('.'):
        part = part.get(name) or {}
    wanted = dict(FIXED[place])
    kind = str(part.get('type')).split('.')[-1]
    if kind != wanted.pop('type'):
        raise UserError(
            f'{place} is a {kind}, and AutoencoderRAE has a {FIXED[place]["type"]} there',
            'Only a RepresentationAutoencoder on DINOv2 with registers, with a MAEDecoder, has its layout.',
        )
    registries = {'encoder': VQEncoderRegistry, 'encoder.teacher': VQTeacherRegistry, 'decoder': VQDecoderRegistry}
    parameters = parameters_of(registries[place].parse(kind)[1])
    found = {**{name: one.default for name, one in parameters.items() if not one.required}, **part}
    for key, value in wanted.items():
        if found[key] != value:
            raise UserError(
                f'{place}.{key} is {found[key]}, and AutoencoderRAE has {value}', 'Such an autoencoder has no such layout.'
            )
    return found
