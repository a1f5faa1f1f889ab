"""taming-transformers: ``VQModel`` and ``GumbelVQ``."""

from __future__ import annotations

from typing import Any

from vq.core.errors import UserError
from vq.io.published.autoencoder import assemble, codebook_shape, get, level_count
from vq.io.published.keymap import Converted, Rule, State, Words, drop, map_keys, rename

NESTS = ('state_dict',)  # keys under which the file nests its state dict
SIDES = {'encoder': 'encoder', 'decoder': 'decoder'}
RESIDUAL = {'norm1': 'norm1', 'conv1': 'conv1', 'norm2': 'norm2', 'conv2': 'conv2', 'nin_shortcut': 'shortcut'}
ATTENTION = {'norm': 'norm', 'q': 'q', 'k': 'k', 'v': 'v', 'proj_out': 'proj'}
ENDS = {'conv_in': 'stem', 'norm_out': 'norm_out', 'conv_out': 'conv_out'}
CONNECTORS = {'quant_conv': 'post_encode', 'post_quant_conv': 'pre_decode'}

AUTOENCODER = (  # shared by all models derived from its encoder and decoder
    rename('encoder.down.{i}.block.{j}.{residual}.{leaf}', 'encoder.levels.{i}.blocks.{j}.{residual}.{leaf}'),
    rename('encoder.down.{i}.attn.{j}.{attention}.{leaf}', 'encoder.levels.{i}.attentions.{j}.{attention}.{leaf}'),
    rename('encoder.down.{i}.downsample.conv.{leaf}', 'encoder.levels.{i}.resample.conv.{leaf}'),
    rename('decoder.up.{up}.block.{j}.{residual}.{leaf}', 'decoder.levels.{up}.blocks.{j}.{residual}.{leaf}'),
    rename('decoder.up.{up}.attn.{j}.{attention}.{leaf}', 'decoder.levels.{up}.attentions.{j}.{attention}.{leaf}'),
    rename('decoder.up.{up}.upsample.conv.{leaf}', 'decoder.levels.{up}.resample.conv.{leaf}'),
    rename('{side}.mid.block_1.{residual}.{leaf}', '{side}.refine.0.{residual}.{leaf}'),
    rename('{side}.mid.attn_1.{attention}.{leaf}', '{side}.refine.1.{attention}.{leaf}'),
    rename('{side}.mid.block_2.{residual}.{leaf}', '{side}.refine.2.{residual}.{leaf}'),
    rename('{side}.{end}.{leaf}', '{side}.{end}.{leaf}'),
    rename('{connector}.{leaf}', '{connector}.conv.{leaf}'),
)
RULES = (
    *AUTOENCODER,
    rename('quantize.embedding.weight', 'quantizer.codebook.weight'),
    rename('quantize.embed.weight', 'quantizer.codebook.weight'),
    rename('quantize.proj.{leaf}', 'quantizer.logits.{leaf}', dims=2),
    drop('loss.perceptual_loss.{rest}', 'perceptual network: read from files of its own'),
)
DISCRIMINATOR = rename('loss.discriminator.{rest}', 'discriminator.{rest}')
NO_DISCRIMINATOR = drop('loss.discriminator.{rest}', 'discriminator: left out by an option')


def vocabulary(levels: int) -> dict[str, Words]:
    """The vocabulary of an autoencoder with this number of levels."""
    return {
        'side': SIDES,
        'residual': RESIDUAL,
        'attention': ATTENTION,
        'end': ENDS,
        'connector': CONNECTORS,
        # their decoder counts levels from full resolution, ours from the lowest
        'up': {str(level): str(levels - 1 - level) for level in range(levels)} or {'0': '0'},
    }


def convert(
    state: State,
    *,
    image_size: int = 256,
    legacy: bool = True,
    beta: float = 0.25,
    temperature: float = 1.0,
    kl_weight: float = 5e-4,
    discriminator: bool = True,
) -> Converted:
    """``legacy``: beta weighs the codebook loss, as when the published models were trained, not the commitment loss.

    ``temperature`` and ``kl_weight`` are for further training of a Gumbel model.
    """
    rules: tuple[Rule, ...] = (*RULES, DISCRIMINATOR if discriminator else NO_DISCRIMINATOR)
    mapped, dropped = map_keys(state, rules, vocabulary(level_count(state, 'decoder.up.')))
    size, dim = codebook_shape(mapped)
    if 'quantizer.logits.weight' in mapped:
        quantizer = _gumbel(mapped, size, dim, temperature, kl_weight)
    else:
        weights = dict(zip(('codebook_weight', 'commitment_weight'), (beta, 1.0) if legacy else (1.0, beta), strict=True))
        quantizer = {'type': 'VectorQuantizer', 'codebook_size': size, 'embedding_dim': dim, **weights}
    return assemble(mapped, quantizer, image_size, dropped)


def _gumbel(state: State, size: int, dim: int, temperature: float, kl_weight: float) -> dict[str, Any]:
    logits = get(state, 'quantizer.logits.weight')
    if tuple(logits.shape) != (size, dim):
        raise UserError(
            f'its logits are {tuple(logits.shape)}, and its codes are {(size, dim)}',
            'Only models whose features are as wide as their codes can be converted.',
        )
    return {
        'type': 'GumbelQuantizer',
        'codebook_size': size,
        'embedding_dim': dim,
        'temperature': temperature,
        'kl_weight': kl_weight,
    }
