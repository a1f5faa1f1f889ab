"""BEiT v2's VQ-KD tokenizers (microsoft/unilm)."""

from __future__ import annotations

from typing import Any

from vq.core.errors import UserError
from vq.io.published.autoencoder import HINT, codebook_shape, get, level_count
from vq.io.published.keymap import Converted, Rule, State, drop, map_keys, rename

NESTS = ('model', 'state_dict')

HEAD = 64  # channels of one attention head in all published models
VOCABULARY = {
    'side': {'encoder': 'encoder', 'decoder': 'feature_decoder'},
    'task': {'encode_task_layer': 'encoder', 'decode_task_layer': 'feature_decoder'},
    'end': {'0': 'task_in', '2': 'task_out'},
    'norm': {'norm1': 'norm_attention', 'norm2': 'norm_mlp'},
    'bias': {'q_bias': 'q_bias', 'v_bias': 'v_bias'},
    'layer': {'attn.proj': 'proj', 'mlp.fc1': 'mlp_in', 'mlp.fc2': 'mlp_out'},
    'of_training': dict.fromkeys(('cluster_size', 'embed_avg', 'initted'), ''),
    'loss': dict.fromkeys(('loss', 'teacher', 'scaling'), ''),
}
RULES: tuple[Rule, ...] = (
    rename('{side}.cls_token', '{side}.class_token', dims=1),
    rename('{side}.pos_embed', '{side}.positions.weight', dims=2),
    rename('{side}.patch_embed.proj.{leaf}', '{side}.stem.{leaf}'),
    rename('{side}.blocks.{i}.{norm}.{leaf}', '{side}.blocks.{i}.{norm}.{leaf}'),
    rename('{side}.blocks.{i}.attn.{bias}', '{side}.blocks.{i}.qkv.{bias}'),
    rename('{side}.blocks.{i}.attn.qkv.weight', '{side}.blocks.{i}.qkv.weight'),
    rename('{side}.blocks.{i}.{layer}.{leaf}', '{side}.blocks.{i}.{layer}.{leaf}'),
    rename('{side}.fc_norm.{leaf}', '{side}.norm_out.{leaf}'),
    rename('{task}.{end}.{leaf}', '{task}.{end}.{leaf}'),
    rename('quantize.embedding.weight', 'quantizer.codebook.weight'),
    rename('quantize.cluster_size', 'quantizer.codebook_update.count'),
    drop('quantize.embedding.{of_training}', 'records of the codebook that its updates do not read'),
    drop('{loss}{rest}', 'teacher and losses: read from files of their own'),
)
NO_DECODER = (
    drop('decoder.{rest}', 'feature decoder: left out by an option'),
    drop('decode_task_layer.{rest}', 'feature decoder: left out by an option'),
)


def convert(state: State, *, with_decoder: bool = True, heads: int | None = None, decay: float = 0.99) -> Converted:
    """``with_decoder=False`` leaves out the decoder of the teacher's features, which only training needs.

    ``heads``: attention heads, by default one for 64 channels, as in all published models; shapes do not tell. ``decay`` is
    for further training.
    """
    mapped, dropped = map_keys(state, RULES if with_decoder else (*NO_DECODER, *RULES), VOCABULARY)
    size, dim = codebook_shape(mapped)
    encoder, grid = _network(mapped, 'encoder', heads)
    patch = int(get(mapped, 'encoder.stem.weight').shape[-1])
    quantizer = {
        'type': 'VectorQuantizer',
        'codebook_size': size,
        'embedding_dim': dim,
        'normalize': True,
        'commitment_weight': 1.0,
        'update': {'type': 'VQKDUpdate', 'decay': decay},
    }
    tokenizer: dict[str, Any] = {
        'type': 'VQKD',
        'encoder': {'type': 'ViTEncoder', **encoder, 'patch': patch, 'image_size': grid * patch},
        'quantizer': quantizer,
    }
    if with_decoder:
        decoder, cells = _network(mapped, 'feature_decoder', heads)
        tokenizer['feature_decoder'] = {'type': 'ViTFeatureDecoder', 'in_channels': dim, **decoder, 'grid': cells}
    return Converted(tokenizer, {f'tokenizer.{key}': value for key, value in mapped.items()}, grid * patch, dropped)


def _network(state: State, side: str, heads: int | None) -> tuple[dict[str, Any], int]:
    """The settings that both networks have, and the side of the grid of positions."""
    positions, hidden = get(state, f'{side}.positions.weight'), get(state, f'{side}.blocks.0.mlp_in.weight')
    count, dim = int(positions.shape[0]), int(positions.shape[-1])
    grid = round(max(count - 1, 0) ** 0.5)
    if positions.ndim != 2 or grid < 1 or grid * grid + 1 != count:
        raise UserError(f"'{side}' has positions {tuple(positions.shape)}, not of a class token and a square of patches", HINT)
    if heads is None and dim % HEAD:
        raise UserError(f"'{side}' has {dim} channels, so its number of heads is not known", 'Give it: --options heads:N.')
    settings = {
        'out_channels': int(get(state, f'{side}.task_out.bias').shape[0]),
        'dim': dim,
        'depth': level_count(state, f'{side}.blocks.'),
        'heads': heads or dim // HEAD,
        'mlp_ratio': hidden.shape[0] / dim,
    }
    return settings, grid
