"""The reference toolkit's ``model.pth``: a VQGAN, CVQ-VAE or FSQ it trained, or a VQGAN converted from taming's."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.io.published.autoencoder import HINT, assemble, codebook_shape
from vq.io.published.discriminators import patchgan_keys, reference_stylegan2_keys
from vq.io.published.keymap import Converted, Rule, State, drop, map_keys, rename, split

NESTS = ('model', 'state_dict')
TABLE = '_quantizer._embeddings'
KNOWN_LEVELS = {8000: [8, 8, 5, 5, 5], 64000: [8, 8, 8, 5, 5, 5]}  # number of codes -> levels in its configs

SIDES = {'_encoder': 'encoder', '_decoder': 'decoder'}
RESIDUAL = {
    '_residual.0': 'norm1',
    '_residual.2': 'conv1',
    '_residual.3': 'norm2',
    '_residual.5': 'conv2',
    '_shortcut': 'shortcut',
}
ENDS = {'_in_conv': 'stem', '_projector.0': 'norm_out', '_projector.2': 'conv_out'}
CONNECTORS = {'_post_encode': 'post_encode', '_pre_decode': 'pre_decode'}
PROJECTIONS = {'in_proj_weight': 'weight', 'in_proj_bias': 'bias'}
PLACES = (
    ('{side}._layers.{i}._attentions.{j}', '{side}.levels.{i}.attentions.{j}'),
    ('{side}._refine.{i}', '{side}.refine.{i}'),
)


def _attention(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Their projections of queries, keys and values are packed into one tensor, in this order."""
    return (
        rename(f'{theirs}._group_norm.{{leaf}}', f'{ours}.norm.{{leaf}}'),
        split(f'{theirs}._multihead_attention.{{packed}}', [f'{ours}.{part}.{{packed}}' for part in 'qkv'], dims=4),
        rename(f'{theirs}._multihead_attention.out_proj.{{leaf}}', f'{ours}.proj.{{leaf}}', dims=4),
    )


RULES = (
    rename('{side}._layers.{i}._residuals.{j}.{residual}.{leaf}', '{side}.levels.{i}.blocks.{j}.{residual}.{leaf}'),
    rename('{side}._resamples.{i}._conv.{leaf}', '{side}.levels.{i}.resample.conv.{leaf}'),
    rename('{side}._refine.{i}.{residual}.{leaf}', '{side}.refine.{i}.{residual}.{leaf}'),
    *(rule for place in PLACES for rule in _attention(*place)),
    rename('{side}.{end}.{leaf}', '{side}.{end}.{leaf}'),
    rename('{connector}._conv.{leaf}', '{connector}.conv.{leaf}'),
    rename('{connector}._connectors.{i}._conv.{leaf}', '{connector}.convs.{i}.{leaf}'),
    drop(TABLE, 'table of scalar codes: computed from tokens here'),
    rename('_quantizer._embedding.weight', 'quantizer.codebook.weight'),
    drop('_quantizer._probability', "average use of the codes: state of the toolkit's own codebook updates"),
    drop('{rest}._weight._steps', "counter of a loss weight's schedule"),
    drop('_r_losses.lpips{rest}', 'perceptual network: read from files of its own'),
)
DISCRIMINATOR = (
    rename('_discriminator._discriminator.{rest}', 'discriminator.main.{rest}'),
    rename('_discriminator._layers.{rest}', 'discriminator._layers.{rest}'),
    rename('_discriminator._projector.{rest}', 'discriminator._projector.{rest}'),
)
NO_DISCRIMINATOR = (drop('_discriminator.{rest}', 'discriminator: left out by an option'),)
VOCABULARY = {'side': SIDES, 'residual': RESIDUAL, 'end': ENDS, 'connector': CONNECTORS, 'packed': PROJECTIONS}


def convert(
    state: State,
    *,
    image_size: int = 256,
    distance: Literal['l2', 'cosine'] = 'l2',
    normalize: bool = False,
    commitment_weight: float = 0.25,
    discriminator: bool = True,
) -> Converted:
    """``distance`` and ``normalize`` are settings of the config the model was trained with (``normalize``: LlamaGen's)."""
    rules = (*RULES, *(DISCRIMINATOR if discriminator else NO_DISCRIMINATOR))
    mapped, dropped = map_keys(state, rules, VOCABULARY)
    quantizer: dict[str, Any]
    if TABLE in state:
        quantizer = {'type': 'FiniteScalarQuantizer', 'levels': levels_of(state[TABLE])}
    else:
        size, dim = codebook_shape(mapped)
        quantizer = {
            'type': 'VectorQuantizer',
            'codebook_size': size,
            'embedding_dim': dim,
            'distance': distance,
            'normalize': normalize,
            'commitment_weight': commitment_weight,
        }
    stylegan2 = any(key.startswith('discriminator._layers.') for key in mapped)
    keys = reference_stylegan2_keys if stylegan2 else patchgan_keys
    return assemble(mapped, quantizer, image_size, dropped, critic_keys=keys)


def levels_of(table: Tensor) -> list[int]:
    """The levels of each channel, from a table (K, d) of all scalar codes. Codes in another order than ours are an error."""
    if table.ndim != 2:
        raise UserError(f'the table of codes has the shape {tuple(table.shape)}, and K x d is needed', HINT)
    if table.is_meta:  # only shapes are known: look up the levels of the toolkit's configs
        levels = KNOWN_LEVELS.get(len(table), [])
    else:
        levels = [len(torch.unique(column)) for column in table.float().unbind(1)]
    if len(levels) != table.shape[1] or math.prod(levels) != len(table) or min(levels) < 3:
        raise UserError(f'a table of {len(table)} codes of {table.shape[1]} channels is not all combinations of levels', HINT)
    if not table.is_meta:
        index, places = torch.arange(len(table)), torch.tensor([math.prod(levels[:place]) for place in range(len(levels))])
        digits = index[:, None] // places % torch.tensor(levels)  # the first channel varies fastest
        if not torch.allclose(digits / (torch.tensor(levels) // 2) - 1, table.float().cpu(), atol=1e-5):
            raise UserError('the scalar codes of the file are not -1 to 1 in equal steps, the first channel fastest', HINT)
    return levels
