"""The wide-headed diffusion transformers of RAE (DiT-DH), written from their key lists."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vq.core.errors import UserError
from vq.io.published.dit import DENOISER, HEADS, POSITIONS, TABLE, ConvertedDenoiser, class_conditioner, depth_of, heads_of
from vq.io.published.keymap import State, drop, map_keys, rename

NESTS = ('ema', 'model')
HEAD_HEADS = 16

PARTS = {
    'norm1': 'norm1',
    'norm2': 'norm2',
    'attn.qkv': 'attention.qkv',
    'attn.proj': 'attention.proj',
    'attn.q_norm': 'attention.q_norm',
    'attn.k_norm': 'attention.k_norm',
    'mlp.w12': 'mlp.into',
    'mlp.w3': 'mlp.out',
    'adaLN_modulation.1': 'modulation',
}
ENDS = {
    's_embedder.proj': 'patches',
    'x_embedder.proj': 'head_patches',
    's_projector': 'bridge',
    't_embedder.mlp.0': 'time.mlp.into',
    't_embedder.mlp.2': 'time.mlp.out',
    'final_layer.norm_final': 'final.norm',
    'final_layer.linear': 'final.linear',
    'final_layer.adaLN_modulation.1': 'final.modulation',
}
FREQUENCIES = ('t_embedder.W', 'time.frequencies')
RULES = (
    *(rename(f'{theirs}.{{leaf}}', f'{DENOISER}{ours}.{{leaf}}') for theirs, ours in ENDS.items()),
    rename('blocks.{i}.{part}.{leaf}', 'denoiser.blocks.{i}.{part}.{leaf}'),
    rename(FREQUENCIES[0], DENOISER + FREQUENCIES[1]),
    rename('y_embedder.embedding_table.weight', TABLE),
    *(drop(f'{part}_feat_rope.{{rest}}', 'rotary tables: computed') for part in ('enc', 'dec')),
)
NEEDED = ('head_patches.weight', 'patches.weight', 'time.frequencies', 'blocks.0.mlp.into.weight', 'final.linear.weight')


def convert(
    state: State, *, heads: int | None = None, head_heads: int | None = None, label_drop: float = 0.1
) -> ConvertedDenoiser:
    """``heads`` of the trunk and ``head_heads`` of the wide head: shapes do not tell. None: those of the published widths."""
    rest = dict(state)
    positions = rest.pop(POSITIONS, None)
    tensors, dropped = map_keys(rest, RULES, {'part': PARTS})
    missing = [key for key in (*(DENOISER + key for key in NEEDED), TABLE) if key not in tensors]
    if positions is None or missing:
        raise UserError(
            f'it has no {POSITIONS if positions is None else missing[0]}',
            'Is it a DiT with a wide head, with rotary positions, SwiGLU and RMSNorm, and complete?',
        )
    dim, channels, patch, _ = tensors[f'{DENOISER}patches.weight'].shape
    head_dim, _, head_patch, _ = tensors[f'{DENOISER}head_patches.weight'].shape
    side = round(positions.shape[1] ** 0.5)
    if side**2 != positions.shape[1] or patch != head_patch:
        raise UserError(
            f'it has {positions.shape[1]} positions, and patches of {patch} and {head_patch}',
            'Only positions of a square and patches of one size can be converted.',
        )
    width = tensors[f'{DENOISER}blocks.0.mlp.into.weight'].shape[0] // 2  # int(2/3 int(ratio dim)) of it
    tensors, depth = _split(tensors, dim)
    denoiser = {
        'type': 'WideHeadDiT',
        'channels': channels,
        'cells': (side * patch, side * patch),
        'dim': dim,
        'depth': depth,
        'heads': heads_of(dim, heads),
        'head_dim': head_dim,
        'head_depth': depth_of(tensors, f'{DENOISER}head_blocks'),
        'head_heads': heads_of(head_dim, HEAD_HEADS if head_heads is None and dim in HEADS else head_heads),
        'patch': patch,
        'mlp_ratio': _ratio(width, dim),
        'qk_norm': f'{DENOISER}blocks.0.attention.q_norm.weight' in tensors,
    }
    conditioner = class_conditioner(tensors[TABLE], label_drop)
    return ConvertedDenoiser(denoiser, conditioner, tensors, positions, dropped=dropped)


def _split(tensors: Mapping[str, Tensor], dim: int) -> tuple[dict[str, Tensor], int]:
    """The blocks of the file are those of the trunk, then those of the head: these begin with the first of another width, or
    are the last two if all have the same width."""
    count = depth_of(tensors, f'{DENOISER}blocks')
    widths = [tensors[f'{DENOISER}blocks.{block}.modulation.weight'].shape[1] for block in range(count)]
    depth = next((block for block, width in enumerate(widths) if width != dim), count - 2)
    if not 0 < depth < count:
        raise UserError(f'{depth} of its {count} blocks are of the trunk', 'Trunk and head have a block or more each.')
    found: dict[str, Tensor] = {}
    for key, value in tensors.items():
        block = re.fullmatch(r'denoiser\.blocks\.(\d+)\.(.+)', key)
        if block and int(block[1]) >= depth:
            key = f'{DENOISER}head_blocks.{int(block[1]) - depth}.{block[2]}'
        found[key] = value
    return found, depth


def _ratio(width: int, dim: int) -> float:
    """A ratio with  width = int(2/3 int(ratio dim))."""
    return 4.0 if int(2 / 3 * int(4 * dim)) == width else 1.5 * (width + 0.7) / dim


def restore(tensors: Mapping[str, Tensor], positions: Tensor) -> dict[str, Tensor]:
    """The reverse of ``convert``, without rotary tables. ``positions``: those of the denoiser, (N, dim)."""
    restored = {POSITIONS: positions.view(1, *positions.shape[-2:])}
    parts, ends = ({ours: theirs for theirs, ours in words.items()} for words in (PARTS, ENDS))
    depth = depth_of(tensors, f'{DENOISER}blocks')
    for key, value in tensors.items():
        name, _, leaf = key.removeprefix(DENOISER).rpartition('.')
        block = re.fullmatch(r'(head_)?blocks\.(\d+)\.(.+)', name)
        if key == TABLE:
            restored['y_embedder.embedding_table.weight'] = value
        elif key == DENOISER + FREQUENCIES[1]:
            restored[FREQUENCIES[0]] = value
        elif name in ends:
            restored[f'{ends[name]}.{leaf}'] = value
        elif block and block[3] in parts:
            restored[f'blocks.{int(block[2]) + (depth if block[1] else 0)}.{parts[block[3]]}.{leaf}'] = value
        else:
            raise UserError(f"'{key}' is not a tensor of a published DiT-DH", 'Give those of a WideHeadDiT, with its classes.')
    return restored
