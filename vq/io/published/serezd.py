"""SerezD's VQ-VAE and VQ-GAN study: ``VQVAE`` and ``VQGAN`` with the standard, entropy, EMA or Gumbel quantizer."""

from __future__ import annotations

import re
from typing import Any

from vq.io.published.autoencoder import assemble, codebook_shape, get, level_count
from vq.io.published.discriminators import stylegan2_keys
from vq.io.published.keymap import Converted, Rule, State, Words, drop, map_keys, rename

NESTS = ('state_dict',)

NORMS = {'norm1': 'norm1', 'norm2': 'norm2'}
CONVS = {'conv1': 'conv1', 'conv2': 'conv2', 'conv_shortcut': 'shortcut'}
ENDS = {'conv_in': 'stem', 'conv_out': 'conv_out'}
SIDES = {'encoder': 'encoder', 'decoder': 'decoder'}
REFINE = {'final_residual': 'refine', 'initial_residual': 'refine'}

RULES = (
    rename('{side}.blocks.{place}.{norm}.{leaf}', '{side}.{place}.{norm}.{leaf}', dims=1),
    rename('{side}.blocks.{place}.{conv}.{leaf}', '{side}.{place}.{conv}.{leaf}'),
    rename('decoder.blocks.{resample}.conv.{leaf}', 'decoder.{resample}.conv.{leaf}'),
    rename('{side}.{refine}.{i}.{norm}.{leaf}', '{side}.{refine}.{i}.{norm}.{leaf}', dims=1),
    rename('{side}.{refine}.{i}.{conv}.{leaf}', '{side}.{refine}.{i}.{conv}.{leaf}'),
    rename('{side}.norm.{leaf}', '{side}.norm_out.{leaf}', dims=1),
    rename('{side}.{end}.{leaf}', '{side}.{end}.{leaf}'),
    rename('quantizer.codebook.weight', 'quantizer.codebook.weight'),
    rename('quantizer.x_to_logits.{leaf}', 'quantizer.logits.{leaf}', dims=2),
    rename('quantizer.ema_count', 'quantizer.codebook_update.count'),
    rename('quantizer.ema_weight', 'quantizer.codebook_update.sums'),
)
DISCRIMINATOR = rename('criterion.discriminator.{rest}', 'discriminator.{rest}')
NO_DISCRIMINATOR = drop('criterion.discriminator.{rest}', 'discriminator: left out by an option')
LOSSES = drop('criterion.{rest}', 'losses: the perceptual network is read from files of its own')

SHARED = {'norm': 'group_unbiased', 'resample_last': True}
ENCODER = {**SHARED, 'downsample': 'average'}
DECODER = {**SHARED, 'output': 'tanh'}


def convert(
    state: State,
    *,
    image_size: int = 256,
    commitment_weight: float = 0.25,
    decay: float = 0.95,
    temperature: float = 0.0625,
    kl_weight: float = 0.00859375,
    straight_through: bool = False,
    discriminator: bool = True,
) -> Converted:
    """All options but ``image_size`` and ``discriminator`` are for further training: ``decay`` is that of an EMA codebook;
    ``temperature``, ``kl_weight`` and ``straight_through`` are the final values of a Gumbel quantizer's schedules.

    An EMA codebook is updated as theirs: counts are smoothed by the number of images (``smoothing='images'``).
    """
    blocks = level_count(state, 'encoder.final_residual.')
    rules: tuple[Rule, ...] = (*RULES, DISCRIMINATOR if discriminator else NO_DISCRIMINATOR, LOSSES)
    mapped, dropped = map_keys(state, rules, _vocabulary(state, blocks))
    size, dim = codebook_shape(mapped)
    quantizer: dict[str, Any] = {'type': 'VectorQuantizer', 'codebook_size': size, 'embedding_dim': dim}
    if 'quantizer.logits.weight' in mapped:
        quantizer['type'] = 'GumbelQuantizer'
        quantizer['feature_dim'] = int(mapped['quantizer.logits.weight'].shape[1])
        quantizer |= {'temperature': temperature, 'kl_weight': kl_weight, 'straight_through': straight_through}
    else:
        quantizer['commitment_weight'] = commitment_weight
    if 'quantizer.codebook_update.count' in mapped:
        quantizer['update'] = {'type': 'EMAUpdate', 'decay': decay, 'smoothing': 'images'}
    encoder, decoder = dict(ENCODER), dict(DECODER)
    if not any('.resample.' in key for key in mapped if key.startswith('decoder.')):
        decoder['upsample'] = 'repeat'
    if get(state, 'encoder.norm.weight').ndim == 1:
        encoder['norm'] = decoder['norm'] = 'group'
    return assemble(mapped, quantizer, image_size, dropped, encoder=encoder, decoder=decoder, critic_keys=stylegan2_keys)


def _vocabulary(state: State, blocks: int) -> dict[str, Words]:
    """They number residual blocks and resamplings consecutively: a level is ``blocks`` residual blocks and one resampling."""
    numbers = {int(found[1]) for key in state if (found := re.match(r'(?:encoder|decoder)\.blocks\.(\d{1,4})\.', key))}
    places, resamples = {'none': 'none'}, {'none': 'none'}
    for number in numbers:
        level, block = divmod(number, blocks + 1)
        if block < blocks:
            places[str(number)] = f'levels.{level}.blocks.{block}'
        else:
            resamples[str(number)] = f'levels.{level}.resample'
    words = {'norm': NORMS, 'conv': CONVS, 'end': ENDS, 'side': SIDES, 'refine': REFINE}
    return {**words, 'place': places, 'resample': resamples}
