"""The reference toolkit's ``model.pth``: a VQGAN it trained, or converted from taming's."""

from __future__ import annotations

from typing import Literal

from vq.io.published.autoencoder import assemble, codebook_shape
from vq.io.published.keymap import Converted, Rule, State, drop, map_keys, rename, split

NESTS = ('model', 'state_dict')

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
    """Their queries, keys and values stand in one packed projection, in this order."""
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
    rename('_quantizer._embedding.weight', 'quantizer.codebook.weight'),
    drop('_quantizer._probability', "average use of the codes: state of the toolkit's own codebook updates"),
    drop('{rest}._weight._steps', "counter of a loss weight's schedule"),
    drop('_r_losses.lpips{rest}', 'perceptual network: read from files of its own'),
)
DISCRIMINATOR = rename('_discriminator._discriminator.{rest}', 'discriminator.main.{rest}')
NO_DISCRIMINATOR = drop('_discriminator.{rest}', 'discriminator: left out by an option')
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
    """``distance`` and ``normalize`` are those of the config it was trained with (``normalize`` for LlamaGen's)."""
    rules = (*RULES, DISCRIMINATOR if discriminator else NO_DISCRIMINATOR)
    mapped, dropped = map_keys(state, rules, VOCABULARY)
    size, dim = codebook_shape(mapped)
    quantizer = {
        'type': 'VectorQuantizer',
        'codebook_size': size,
        'embedding_dim': dim,
        'distance': distance,
        'normalize': normalize,
        'commitment_weight': commitment_weight,
    }
    return assemble(mapped, quantizer, image_size, dropped)
