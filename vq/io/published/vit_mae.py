"""The masked autoencoder of transformers, ``ViTMAEForPreTraining``: its encoder by the names of timm, its decoder by
ours. The encoder's weights are those of the file, so it counts as trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.io.published.autoencoder import HINT, get, level_count
from vq.io.published.keymap import Converted, State, map_keys, rename
from vq.io.published.rae_decoder import PIECES, POSITIONS, decoder_of

NETWORK = 'encoder.teacher.network.'
LAYERS = {
    'attention.output.dense': 'attn.proj',
    'intermediate.dense': 'mlp.fc1',
    'output.dense': 'mlp.fc2',
    'layernorm_before': 'norm1',
    'layernorm_after': 'norm2',
    **{f'attention.attention.{piece}': f'attn.qkv.{piece}' for piece in PIECES},
}
RULES = (
    rename('vit.embeddings.cls_token', f'{NETWORK}cls_token'),
    rename('vit.embeddings.position_embeddings', f'{NETWORK}pos_embed'),
    rename('vit.embeddings.patch_embeddings.projection.{leaf}', f'{NETWORK}patch_embed.proj.{{leaf}}'),
    rename('vit.encoder.layer.{i}.{layer}.{leaf}', f'{NETWORK}blocks.{{i}}.{{layer}}.{{leaf}}'),
    rename('vit.layernorm.{leaf}', f'{NETWORK}norm.{{leaf}}'),
)
DECODER, MASK = 'decoder.', 'mask_token'


def convert(state: State, *, heads: int | None = None, decoder_heads: int | None = None) -> Converted:
    """All patches are seen: ``mask_ratio`` 0. ``heads``: None: heads of 64 channels in the encoder, of 32 in the decoder."""
    encoder = {key: value for key, value in state.items() if not key.startswith(DECODER)}
    theirs = {key.removeprefix(DECODER): value for key, value in state.items() if key.startswith(DECODER)}
    theirs.pop(MASK, None)
    tensors = packed(map_keys(encoder, RULES, {'layer': LAYERS})[0])
    patches, positions = get(tensors, f'{NETWORK}patch_embed.proj.weight'), get(tensors, f'{NETWORK}pos_embed')
    width, patch = int(patches.shape[0]), int(patches.shape[-1])
    side = round((positions.shape[1] - 1) ** 0.5)
    if positions.ndim != 3 or side * side + 1 != positions.shape[1]:
        raise UserError(f'the encoder has positions {tuple(positions.shape)}, not those of a class token and a square', HINT)
    narrow = int(get(theirs, 'decoder_embed.weight').shape[0])
    decoder, more = decoder_of(theirs, decoder_heads or max(1, narrow // 32))
    decoder['class_token'] = 'learned' if 'decoder.class_token' in more else 'given'
    teacher: dict[str, Any] = {'type': 'MAETeacher', 'dimension': width, 'heads': heads or max(1, width // 64)}
    teacher |= {'depth': level_count(tensors, f'{NETWORK}blocks.'), 'image_size': side * patch, 'patch_size': patch}
    tokenizer = {
        'type': 'MAEAutoencoder',
        'encoder': {'type': 'MAEEncoder', 'teacher': teacher, 'train_encoder': True},
        'decoder': decoder,
    }
    dropped = {'positions of the decoder: computed by a formula': [f'{DECODER}{POSITIONS}']}
    if f'{DECODER}{MASK}' in state:
        dropped['vector of masked patches: no patch is masked'] = [f'{DECODER}{MASK}']
    return Converted(
        tokenizer, {f'tokenizer.{key}': value for key, value in {**tensors, **more}.items()}, side * patch, dropped
    )


def packed(mapped: State) -> dict[str, Tensor]:
    """Queries, keys and values in one layer."""
    found = {key: value for key, value in mapped.items() if '.qkv.' not in key}
    for key in mapped:
        if '.qkv.query.' in key:
            pieces = [get(mapped, key.replace('.query.', f'.{piece}.')) for piece in PIECES]
            found[key.replace('.query.', '.')] = torch.cat(pieces)
    return found
