"""LlamaGen's image tokenizers, VQ-16 and VQ-8."""

from __future__ import annotations

from vq.io.published.autoencoder import assemble, codebook_shape
from vq.io.published.keymap import Converted, State, drop, map_keys, rename
from vq.io.published.taming import ATTENTION, CONNECTORS, ENDS, RESIDUAL, SIDES

NESTS = ('model', 'state_dict')

RULES = (
    rename('{side}.conv_blocks.{i}.res.{j}.{residual}.{leaf}', '{side}.levels.{i}.blocks.{j}.{residual}.{leaf}'),
    rename('{side}.conv_blocks.{i}.attn.{j}.{attention}.{leaf}', '{side}.levels.{i}.attentions.{j}.{attention}.{leaf}'),
    rename('encoder.conv_blocks.{i}.downsample.conv.{leaf}', 'encoder.levels.{i}.resample.conv.{leaf}'),
    rename('decoder.conv_blocks.{i}.upsample.conv.{leaf}', 'decoder.levels.{i}.resample.conv.{leaf}'),
    rename('{side}.mid.{i}.{residual}.{leaf}', '{side}.refine.{i}.{residual}.{leaf}'),
    rename('{side}.mid.{i}.{attention}.{leaf}', '{side}.refine.{i}.{attention}.{leaf}'),
    rename('{side}.{end}.{leaf}', '{side}.{end}.{leaf}'),
    rename('{connector}.{leaf}', '{connector}.conv.{leaf}'),
    rename('quantize.embedding.weight', 'quantizer.codebook.weight'),
    drop('quantize.codebook_used', 'record of recently used codes: needed in training only'),
)
VOCABULARY = {'side': SIDES, 'residual': RESIDUAL, 'attention': ATTENTION, 'end': ENDS, 'connector': CONNECTORS}


def convert(state: State, *, image_size: int = 256, normalize: bool = True, commitment_weight: float = 0.25) -> Converted:
    """``normalize``: latents and codes have unit length, as in all published models. Shapes do not tell."""
    mapped, dropped = map_keys(state, RULES, VOCABULARY)
    size, dim = codebook_shape(mapped)
    quantizer = {
        'type': 'VectorQuantizer',
        'codebook_size': size,
        'embedding_dim': dim,
        'normalize': normalize,
        'commitment_weight': commitment_weight,
    }
    return assemble(mapped, quantizer, image_size, dropped)
