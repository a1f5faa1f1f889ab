"""VAR's multi-scale VQ-VAE."""

from __future__ import annotations

from vq.core.errors import UserError
from vq.io.published.autoencoder import assemble, codebook_shape, level_count
from vq.io.published.keymap import Converted, Rule, State, drop, map_keys, rename, split
from vq.io.published.taming import AUTOENCODER, vocabulary

NESTS = ('model', 'state_dict')

PLACES = (
    ('encoder.down.{i}.attn.{j}', 'encoder.levels.{i}.attentions.{j}'),
    ('decoder.up.{up}.attn.{j}', 'decoder.levels.{up}.attentions.{j}'),
    ('{side}.mid.attn_1', '{side}.refine.1'),
)
RULES: tuple[Rule, ...] = (
    *(split(f'{theirs}.qkv.{{leaf}}', [f'{ours}.{part}.{{leaf}}' for part in 'qkv']) for theirs, ours in PLACES),
    *AUTOENCODER,
    rename('quantize.embedding.weight', 'quantizer.quantizer.codebook.weight'),
    rename('quantize.quant_resi.qresi_ls.{i}.{leaf}', 'quantizer.blends.{i}.{leaf}'),
    rename('quantize.quant_resi.qresi.{leaf}', 'quantizer.blends.0.{leaf}'),  # one blend for all scales
    rename('quantize.quant_resi.{i}.{leaf}', 'quantizer.blends.{i}.{leaf}'),  # one blend for each scale
    drop('quantize.ema_vocab_hit_SV', 'average use of the codes: needed in training only'),
)


def convert(
    state: State,
    *,
    scales: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    residual: float = 0.5,
    commitment_weight: float = 0.25,
) -> Converted:
    """``scales`` and ``residual`` are VAR's v_patch_nums and quant_resi; give those the model was trained with."""
    mapped, dropped = map_keys(state, RULES, vocabulary(level_count(state, 'decoder.up.')))
    hits = state.get('quantize.ema_vocab_hit_SV')
    if not scales or (hits is not None and len(hits) != len(scales)):
        raise UserError(
            f'{len(scales)} scales are given, and the model was trained with {"none" if hits is None else len(hits)}',
            'Give its scales, such as --options scales:(1,2,3,4,5,6,8,10,13,16).',
        )
    size, dim = codebook_shape(mapped, 'quantizer.quantizer')
    quantizer = {
        'type': 'MultiScaleQuantizer',
        'quantizer': {'type': 'VectorQuantizer', 'codebook_size': size, 'embedding_dim': dim},
        'scales': list(scales),
        'convolutions': level_count(mapped, 'quantizer.blends.'),
        'residual': residual,
        'commitment_weight': commitment_weight,
    }
    image_size = scales[-1] * 2 ** (level_count(mapped, 'encoder.levels.') - 1)
    return assemble(mapped, quantizer, image_size, dropped)
