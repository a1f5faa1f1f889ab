"""The masked autoregressive transformers of MAR, base, large and huge, from their key lists."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.io.published.dit import class_conditioner, depth_of
from vq.io.published.keymap import State, map_keys, rename

NESTS = ('model_ema', 'model', 'state_dict')  # published figures are those of the average
LATENT_SCALE = 0.2325  # published networks see latents of KL-16 times this
HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16}  # by channels: 2xs, base, large, huge
STEPS = 1000

PARTS = {
    'norm1': 'attention_norm',
    'attn.qkv': 'qkv',
    'attn.proj': 'proj',
    'norm2': 'mlp_norm',
    'mlp.fc1': 'up',
    'mlp.fc2': 'down',
}
SIDES = {'encoder': '', 'decoder': 'decoder_'}
ENDS = {
    'z_proj': 'into',
    'z_proj_ln': 'input_norm',
    'encoder_norm': 'norm',
    'decoder_embed': 'to_decoder',
    'decoder_norm': 'decoder_norm',
}
TABLES = {
    'encoder_pos_embed_learned': 'positions',
    'decoder_pos_embed_learned': 'decoder_positions',
    'diffusion_pos_embed_learned': 'head_positions',
    'mask_token': 'hidden_token',
}
HEAD_PARTS = {'in_ln': 'norm', 'mlp.0': 'into', 'mlp.2': 'out', 'adaLN_modulation.1': 'modulation'}
HEAD_ENDS = {
    'time_embed.mlp.0': 'time.mlp.into',
    'time_embed.mlp.2': 'time.mlp.out',
    'cond_embed': 'condition',
    'input_proj': 'into',
    'final_layer.linear': 'final.linear',
    'final_layer.adaLN_modulation.1': 'final.modulation',
}
CLASSES, NULL, TABLE = 'class_emb.weight', 'fake_latent', 'conditioner.table.weight'
NETWORK, HEAD, DIFFLOSS = 'generator.network.', 'generator.head.denoiser.', 'diffloss.net.'
RULES = (
    rename('{side}_blocks.{i}.{part}.{leaf}', f'{NETWORK}{{side}}blocks.{{i}}.{{part}}.{{leaf}}'),
    *(rename(f'{theirs}.{{leaf}}', f'{NETWORK}{ours}.{{leaf}}') for theirs, ours in ENDS.items()),
    *(rename(theirs, NETWORK + ours, 1 if ours == 'hidden_token' else 2) for theirs, ours in TABLES.items()),
    rename(f'{DIFFLOSS}res_blocks.{{i}}.{{block}}.{{leaf}}', f'{HEAD}blocks.{{i}}.{{block}}.{{leaf}}'),
    *(rename(f'{DIFFLOSS}{theirs}.{{leaf}}', f'{HEAD}{ours}.{{leaf}}') for theirs, ours in HEAD_ENDS.items()),
)
VOCABULARY = {'side': SIDES, 'part': PARTS, 'block': HEAD_PARTS}
NEEDED = ('into.weight', 'positions', 'decoder_positions', 'blocks.0.up.weight', 'decoder_blocks.0.up.weight')


@dataclasses.dataclass(frozen=True)
class ConvertedContinuous:
    """A published generator of continuous tokens and the conditioner of its classes, under our names."""

    generator: dict[str, Any]  # configs, for their registries
    conditioner: dict[str, Any]
    tensors: dict[str, Tensor]  # with the keys of a task: generator.*, conditioner.*
    latent_scale: float  # what the network sees is the latent of its autoencoder times this
    dropped: dict[str, list[str]] = dataclasses.field(default_factory=dict)


def convert(state: State, *, heads: int | None = None, patch: int = 1, label_drop: float = 0.1) -> ConvertedContinuous:
    """``heads`` and ``patch``: shapes do not tell; None: the heads of the published width."""
    rest = dict(state)
    table, null = rest.pop(CLASSES, None), rest.pop(NULL, None)
    tensors, dropped = map_keys(rest, RULES, VOCABULARY)
    missing = [key for key in (*(NETWORK + key for key in NEEDED), f'{HEAD}into.weight') if key not in tensors]
    if table is None or null is None or missing:
        name = CLASSES if table is None else NULL if null is None else missing[0]
        raise UserError(f'it has no {name}', 'Is it a class-conditional MAR with its DiffLoss, and complete?')
    dim, width = tensors[f'{NETWORK}into.weight'].shape
    decoder_dim, length = tensors[f'{NETWORK}decoder_positions'].shape[1], tensors[f'{NETWORK}head_positions'].shape[0]
    side = math.isqrt(length)
    if side**2 != length or width % patch**2 or tensors[f'{NETWORK}positions'].shape[0] <= length:
        raise UserError(
            f'it has {length} tokens of {width} numbers, with patches of {patch}',
            'Only squares of whole patches, behind a buffer, can be converted: --options patch:N.',
        )
    tensors[TABLE] = torch.cat([table, null])
    generator = {
        'type': 'MAR',
        'channels': width // patch**2,
        'cells': (side * patch, side * patch),
        'dim': dim,
        'depth': depth_of(tensors, f'{NETWORK}blocks'),
        'heads': heads_of(dim, heads),
        'decoder_dim': decoder_dim,
        'decoder_depth': depth_of(tensors, f'{NETWORK}decoder_blocks'),
        'decoder_heads': heads_of(decoder_dim, heads),
        'patch': patch,
        'mlp_ratio': tensors[f'{NETWORK}blocks.0.up.weight'].shape[0] / dim,
        'buffer': tensors[f'{NETWORK}positions'].shape[0] - length,
        'head': _head(tensors, width),
    }
    return ConvertedContinuous(generator, class_conditioner(tensors[TABLE], label_drop), tensors, LATENT_SCALE, dropped)


def _head(tensors: Mapping[str, Tensor], width: int) -> dict[str, Any]:
    denoiser = {
        'type': 'MLPDenoiser',
        'width': tensors[f'{HEAD}into.weight'].shape[0],
        'depth': depth_of(tensors, f'{HEAD}blocks'),
        'learned_variance': tensors[f'{HEAD}final.linear.weight'].shape[0] == 2 * width,
    }
    return {'type': 'DiffusionHead', 'denoiser': denoiser, 'path': {'type': 'BetaPath', 'schedule': 'cosine', 'steps': STEPS}}


def heads_of(dim: int, heads: int | None) -> int:
    heads = HEADS.get(dim, 0) if heads is None else heads
    if heads < 1 or dim % heads:
        raise UserError(
            f'{dim} channels with {heads or "unknown"} heads: shapes do not tell the number of heads',
            'Give --options heads:N, as the model was trained with.',
        )
    return heads


def restore(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of ``convert``: tensors of a task under the names of MAR."""
    restored: dict[str, Tensor] = {}
    words = [{ours: theirs for theirs, ours in known.items()} for known in (SIDES, PARTS, ENDS, TABLES, HEAD_PARTS, HEAD_ENDS)]
    sides, parts, ends, tables, head_parts, head_ends = words
    for key, value in tensors.items():
        head = key.startswith(HEAD)
        own = key.removeprefix(HEAD if head else NETWORK)
        name, _, leaf = own.rpartition('.')
        block = re.fullmatch(r'(decoder_)?blocks\.(\d+)\.(.+)', name)
        if key == TABLE:
            restored |= {CLASSES: value[:-1], NULL: value[-1:]}
        elif not head and own in tables:
            restored[tables[own]] = value[None, None] if value.ndim == 1 else value[None]
        elif head and block and block[3] in head_parts:
            restored[f'{DIFFLOSS}res_blocks.{block[2]}.{head_parts[block[3]]}.{leaf}'] = value
        elif head and name in head_ends:
            restored[f'{DIFFLOSS}{head_ends[name]}.{leaf}'] = value
        elif not head and block and block[3] in parts:
            restored[f'{sides[block[1] or ""]}_blocks.{block[2]}.{parts[block[3]]}.{leaf}'] = value
        elif not head and name in ends:
            restored[f'{ends[name]}.{leaf}'] = value
        else:
            raise UserError(
                f"'{key}' is not a tensor of a published MAR", 'Give those of a MAR with an MLPDenoiser as its head.'
            )
    return restored
