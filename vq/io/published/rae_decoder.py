"""The decoders of representation autoencoders (bytetriper/RAE): files with a decoder alone, for a frozen public encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import UserError
from vq.io.pretrained import pretrained_file
from vq.io.published.autoencoder import HINT, get, level_count
from vq.io.published.keymap import Converted, State, map_keys, rename
from vq.io.published.reader import read_published
from vq.nn.sine_positions import sine_grid

NESTS = ('model', 'ema', 'state_dict')

Kind = Literal['dinov2', 'mae']
PIECES = ('query', 'key', 'value')
LAYERS = {
    'attention.output.dense': 'proj',
    'intermediate.dense': 'mlp_in',
    'output.dense': 'mlp_out',
    'layernorm_before': 'norm_attention',
    'layernorm_after': 'norm_mlp',
    **{f'attention.attention.{piece}': f'qkv.{piece}' for piece in PIECES},
}
VOCABULARY = {'layer': LAYERS}
POSITIONS = 'decoder_pos_embed'
RULES = (
    rename('trainable_cls_token', 'decoder.class_token', dims=1),
    rename('decoder_embed.{leaf}', 'decoder.stem.{leaf}'),
    rename('decoder_layers.{i}.{layer}.{leaf}', 'decoder.blocks.{i}.{layer}.{leaf}'),
    rename('decoder_norm.{leaf}', 'decoder.norm_out.{leaf}'),
    rename('decoder_pred.{leaf}', 'decoder.out.{leaf}'),
)
SIZES = {384: ('s', 12, 6), 768: ('b', 12, 12), 1024: ('l', 24, 16)}  # width -> size, blocks and heads of encoders
NORMALISATION = {'pixel_mean': (0.485, 0.456, 0.406), 'pixel_deviation': (0.229, 0.224, 0.225)}  # of ImageNet
TINY = 1e-5  # what is added to the variance of the published statistics


def convert(
    state: State,
    *,
    encoder: Kind = 'dinov2',
    heads: int | None = None,
    tau: float = 0.8,
    statistics: str | None = None,
) -> Converted:
    """``encoder``: 'dinov2' (with registers, at 14/16 of the image size) or 'mae', read from its own file. ``heads``: of the
    decoder; None: as in the published sizes. ``tau`` is for further training. ``statistics``: the published file of mean and
    variance of the latents; None: none.
    """
    decoder, tensors = decoder_of(state, heads)
    tensors = {f'tokenizer.{key}': value for key, value in tensors.items()}
    patch, width = decoder['patch'], decoder['in_channels']
    if statistics is not None:
        tensors |= {f'tokenizer.statistics.{name}': value for name, value in _statistics(Path(statistics)).items()}
    tokenizer = {
        'type': 'RepresentationAutoencoder',
        'encoder': {'type': 'RepresentationEncoder', 'teacher': teacher(encoder, width), 'downsampling': patch},
        'decoder': decoder,
        'perturbation': {'type': 'GaussianNoise', 'tau': tau},
    }
    dropped = {'positions: sines and cosines, computed by a formula': [POSITIONS]}
    return Converted(tokenizer, tensors, decoder['grid'] * patch, dropped)


def decoder_of(state: State, heads: int | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config of the decoder, and its tensors, ``decoder.*``."""
    mapped, _ = map_keys({key: value for key, value in state.items() if key != POSITIONS}, RULES, VOCABULARY)
    settings = _settings(mapped, state, heads)
    return settings, packed(mapped, settings['patch'])


def teacher(kind: Kind, width: int) -> dict[str, Any]:
    """The config of the encoder whose latents have ``width`` channels."""
    if width not in SIZES or (kind == 'mae' and width != 768):
        raise UserError(f'the decoder takes {width} channels, and no published encoder {kind} has as many', HINT)
    size, depth, heads = SIZES[width]
    shape = {'dimension': width, 'depth': depth, 'heads': heads, 'image_size': 224}
    if kind == 'mae':
        return {'type': 'MAETeacher', **shape, 'patch_size': 16, 'file': 'mae/mae_pretrain_vit_base.pth'}
    file = f'dinov2/dinov2_vit{size}14_reg4_pretrain.pth'
    return {'type': 'DINOv2Teacher', **shape, 'patch_size': 14, 'file': file, 'registers': 4}


def packed(mapped: State, patch: int) -> dict[str, Tensor]:
    """Queries, keys and values in one layer; the last layer's rows from (row, column, channel) to (channel, row, column)."""
    found: dict[str, Tensor] = {}
    for key, value in mapped.items():
        if '.qkv.' not in key:
            found[key] = value
        elif '.qkv.query.' in key:
            pieces = [get(mapped, key.replace('.query.', f'.{piece}.')) for piece in PIECES]
            found[key.replace('.query.', '.')] = torch.cat(pieces)
    for leaf in ('weight', 'bias'):
        rows = found[f'decoder.out.{leaf}']
        found[f'decoder.out.{leaf}'] = rows.view(patch, patch, 3, *rows.shape[1:]).movedim(2, 0).flatten(0, 2)
    return found


def _settings(mapped: State, state: State, heads: int | None) -> dict[str, Any]:
    stem, out = get(mapped, 'decoder.stem.weight'), get(mapped, 'decoder.out.weight')
    hidden = get(mapped, 'decoder.blocks.0.mlp_in.weight')
    dim = int(stem.shape[0])
    patch = round((out.shape[0] / 3) ** 0.5)
    if 3 * patch * patch != out.shape[0]:
        raise UserError(f'its last layer makes {out.shape[0]} numbers of a cell, not a square of colours', HINT)
    return {
        'type': 'MAEDecoder',
        'in_channels': int(stem.shape[1]),
        'dim': dim,
        'depth': level_count(mapped, 'decoder.blocks.'),
        'heads': heads or (16 if dim == 1152 else dim // 64),
        'patch': patch,
        'grid': _grid(get(state, POSITIONS), dim),
        'mlp_ratio': hidden.shape[0] / dim,
        **NORMALISATION,
    }


def _grid(positions: Tensor, dim: int) -> int:
    """The cells a side. An error if the positions are not those of the formula."""
    count = positions.shape[-2] - 1
    side: int = round(count**0.5)
    if positions.ndim != 3 or side < 1 or side * side != count or positions.shape[-1] != dim:
        raise UserError(f"'{POSITIONS}' has the shape {tuple(positions.shape)}, not that of a class token and a square", HINT)
    if not positions.is_meta:
        own = F.pad(sine_grid(side, side, dim), (0, 0, 1, 0))
        if not torch.allclose(positions[0].float().cpu(), own, atol=1e-3):
            raise UserError(f"'{POSITIONS}' are not the sines and cosines of a {side} x {side} grid", HINT)
    return side


def _statistics(file: Path) -> dict[str, Tensor]:
    """Mean and deviation of the latents, (C, h, w) or (C,). ``file`` can be below the folder of pretrained files."""
    found = read_published(file if file.is_file() else pretrained_file(file))
    mean, variance = (found.get(name) if isinstance(found, dict) else None for name in ('mean', 'var'))
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor) or mean.shape != variance.shape:
        raise UserError(f"{file} has no tensors 'mean' and 'var' of one shape", 'Give stat.pt of the published encoder.')
    return {'mean': mean.float().squeeze(), 'deviation': (variance.float() + TINY).sqrt().squeeze()}
