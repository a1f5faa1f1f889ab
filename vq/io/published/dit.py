"""The diffusion transformers of DiT, XL/2 at 256 and 512 pixels and training files of any size, from their key lists."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vq.core.errors import UserError
from vq.io.published.keymap import State, map_keys, rename

NESTS = ('ema', 'model', 'state_dict')  # training files hold both; published figures are those of the average
LATENT_SCALE = 0.18215  # published networks see latents of Stable Diffusion's autoencoder times this
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # by channels: S, B, L, XL

PARTS = {
    'attn.qkv': 'attention.qkv',
    'attn.proj': 'attention.proj',
    'mlp.fc1': 'mlp.into',
    'mlp.fc2': 'mlp.out',
    'adaLN_modulation.1': 'modulation',
}
ENDS = {
    'x_embedder.proj': 'patches',
    't_embedder.mlp.0': 'time.mlp.into',
    't_embedder.mlp.2': 'time.mlp.out',
    'final_layer.linear': 'final.linear',
    'final_layer.adaLN_modulation.1': 'final.modulation',
}
DENOISER, TABLE, POSITIONS = 'denoiser.', 'conditioner.table.weight', 'pos_embed'
RULES = (
    *(rename(f'{theirs}.{{leaf}}', f'{DENOISER}{ours}.{{leaf}}') for theirs, ours in ENDS.items()),
    rename('blocks.{i}.{part}.{leaf}', 'denoiser.blocks.{i}.{part}.{leaf}'),
    rename('y_embedder.embedding_table.weight', TABLE),
)


@dataclasses.dataclass(frozen=True)
class ConvertedDenoiser:
    """A published denoiser and the conditioner of its classes, under our names."""

    denoiser: dict[str, Any]  # configs, for their registries
    conditioner: dict[str, Any]
    tensors: dict[str, Tensor]  # with the keys of a task: denoiser.*, conditioner.*
    positions: Tensor  # (1, N, dim), those of the file: ours are computed, and must equal them
    latent_scale: float | None = None  # what the network sees is the latent of its autoencoder times this
    dropped: dict[str, list[str]] = dataclasses.field(default_factory=dict)


def convert(state: State, *, heads: int | None = None, label_drop: float = 0.1) -> ConvertedDenoiser:
    """``heads``: shapes do not tell; None: those of the published width."""
    rest = dict(state)
    positions = rest.pop(POSITIONS, None)
    tensors, dropped = map_keys(rest, RULES, {'part': PARTS})
    needed = ('patches.weight', 'blocks.0.mlp.into.weight', 'final.linear.weight')
    missing = [key for key in (*(DENOISER + key for key in needed), TABLE) if key not in tensors]
    if positions is None or missing:
        raise UserError(
            f'it has no {POSITIONS if positions is None else missing[0]}', 'Is it a class-conditional DiT, and complete?'
        )
    dim, channels, patch, _ = tensors[f'{DENOISER}patches.weight'].shape
    outputs = tensors[f'{DENOISER}final.linear.weight'].shape[0] // patch**2
    side = round(positions.shape[1] ** 0.5)
    if side**2 != positions.shape[1] or outputs not in (channels, 2 * channels):
        raise UserError(
            f'it has {positions.shape[1]} positions and {outputs} output channels for {channels} of the input',
            'A DiT has positions of a square, and one or two output channels for each of the input.',
        )
    denoiser = {
        'type': 'DiT',
        'channels': channels,
        'cells': (side * patch, side * patch),
        'dim': dim,
        'depth': depth_of(tensors, f'{DENOISER}blocks'),
        'heads': heads_of(dim, heads),
        'patch': patch,
        'mlp_ratio': tensors[f'{DENOISER}blocks.0.mlp.into.weight'].shape[0] / dim,
        'learned_variance': outputs == 2 * channels,
    }
    conditioner = class_conditioner(tensors[TABLE], label_drop)
    return ConvertedDenoiser(denoiser, conditioner, tensors, positions, LATENT_SCALE, dropped)


def class_conditioner(table: Tensor, drop: float) -> dict[str, Any]:
    """The config of a conditioner with ``table`` (classes + 1, dim): its last row is that of no class."""
    return {'type': 'ClassConditioner', 'classes': len(table) - 1, 'dim': table.shape[1], 'drop': drop}


def depth_of(tensors: Mapping[str, Tensor], blocks: str) -> int:
    return 1 + max(int(found[1]) for key in tensors if (found := re.match(rf'{re.escape(blocks)}\.(\d+)\.', key)))


def heads_of(dim: int, heads: int | None) -> int:
    heads = HEADS.get(dim, 0) if heads is None else heads
    if heads < 1 or dim % heads:
        raise UserError(
            f'{dim} channels with {heads or "unknown"} heads: shapes do not tell the number of heads',
            'Give --options heads:N, as the model was trained with.',
        )
    return heads


def restore(tensors: Mapping[str, Tensor], positions: Tensor) -> dict[str, Tensor]:
    """The reverse of ``convert``: tensors of a task under the names of DiT. ``positions``: those of the denoiser, (N, dim)."""
    restored = {POSITIONS: positions.view(1, *positions.shape[-2:])}
    parts, ends = ({ours: theirs for theirs, ours in words.items()} for words in (PARTS, ENDS))
    for key, value in tensors.items():
        name, _, leaf = key.removeprefix(DENOISER).rpartition('.')
        block = re.fullmatch(r'blocks\.(\d+)\.(.+)', name)
        if key == TABLE:
            restored['y_embedder.embedding_table.weight'] = value
        elif name in ends:
            restored[f'{ends[name]}.{leaf}'] = value
        elif block and block[2] in parts:
            restored[f'blocks.{block[1]}.{parts[block[2]]}.{leaf}'] = value
        else:
            raise UserError(
                f"'{key}' is not a tensor of a published DiT", 'Give those of a DiT in the published form, with its classes.'
            )
    return restored
