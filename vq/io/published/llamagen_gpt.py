"""LlamaGen's class-conditional transformers: GPT-B, L and XL, written from their key lists.

No key list of XXL and 3B was available. They follow the same rules with the sizes of the paper (XXL: 48 layers of 1536
channels and 24 heads; 3B: 24 layers of 3200 channels and 32 heads), and no file of theirs has been tried.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.io.published.keymap import State, drop, map_keys, rename

NESTS = ('model', 'module', 'state_dict')  # DDP's files nest the weights, FSDP's (XXL, 3B) do not
PREFIX = 'generator.'
PATCH = 16  # pixels per token of VQ-16

PARTS = {
    'attention_norm': 'attention_norm',
    'attention.wqkv': 'qkv',
    'attention.wo': 'out',
    'ffn_norm': 'ffn_norm',
    'feed_forward.w2': 'down',
}
RULES = (
    rename('cls_embedding.embedding_table.weight', 'class_embedding.weight'),
    rename('tok_embeddings.weight', 'network.embedding.weight'),
    rename('layers.{i}.{part}.weight', 'network.blocks.{i}.{part}.weight'),
    rename('layers.{i}.feed_forward.w1.weight', 'network.blocks.{i}.gate.weight'),
    rename('layers.{i}.feed_forward.w3.weight', 'network.blocks.{i}.up.weight'),
    rename('norm.weight', 'network.norm.weight'),
    rename('output.weight', 'network.head.weight'),
    drop('freqs_cis', 'table of positions: computed'),
)
BACK = {ours: theirs for theirs, ours in PARTS.items()}
NEEDED = ('class_embedding.weight', 'network.embedding.weight', 'network.head.weight', 'network.blocks.0.qkv.weight')


@dataclasses.dataclass(frozen=True)
class ConvertedGenerator:
    """A published generator under our names."""

    generator: dict[str, Any]  # its config, for VQGeneratorRegistry
    tensors: dict[str, Tensor]  # with the keys of a task: generator.*
    image_size: int
    dropped: dict[str, list[str]] = dataclasses.field(default_factory=dict)


def convert(state: State, *, image_size: int = 256, heads: int | None = None, label_drop: float = 0.1) -> ConvertedGenerator:
    """``heads``: None: heads of 64 channels, or of 100 for 3B. Shapes do not tell."""
    mapped, dropped = map_keys(state, RULES, {'part': PARTS})
    missing = [key for key in NEEDED if key not in mapped]
    gates = [key for key in mapped if key.endswith('.gate.weight')]
    missing += [up for key in gates if (up := key.replace('.gate.', '.up.')) not in mapped]
    if missing:
        raise UserError(f'it has no {missing[0]}', 'Is it a class-conditional transformer of LlamaGen, and complete?')
    for key in gates:  # gate and up are one matrix here
        mapped[key.replace('.gate.', '.gate_up.')] = torch.cat([mapped.pop(key), mapped.pop(key.replace('.gate.', '.up.'))])
    return ConvertedGenerator(
        _config(mapped, image_size, heads, label_drop),
        {PREFIX + key: value for key, value in mapped.items()},
        image_size,
        dropped,
    )


def _config(mapped: Mapping[str, Tensor], image_size: int, heads: int | None, label_drop: float) -> dict[str, Any]:
    codes, dim = mapped['network.embedding.weight'].shape
    heads = dim // (100 if dim == 3200 else 64) if heads is None else heads
    side = image_size // PATCH
    if heads < 1 or dim % heads or side < 1:
        raise UserError(
            f'{dim} channels do not divide into {heads} heads, or {image_size} pixels are less than a token',
            'Give --options heads:N image_size:N as the model was trained with.',
        )
    rows = mapped['network.blocks.0.qkv.weight'].shape[0]
    return {
        'type': 'Autoregressive',
        'cells': (side, side),
        'codebooks': (codes,),
        'classes': len(mapped['class_embedding.weight']) - 1,
        'label_drop': label_drop,
        'network': {
            'type': 'LlamaNetwork',
            'vocabulary': codes,
            'dim': dim,
            'depth': 1 + max(int(found[1]) for key in mapped if (found := re.match(r'network\.blocks\.(\d+)\.', key))),
            'heads': heads,
            'kv_heads': (rows - dim) // (2 * (dim // heads)),
            'grid': (side, side),
            'prefix': 1,
            'ffn_dim': mapped['network.blocks.0.down.weight'].shape[1],
            'token_dropout': 0.1,
            'dropout': 0.1,
        },
    }


def restore(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of ``convert``: tensors of a task, or of a generator, under LlamaGen's names."""
    restored: dict[str, Tensor] = {}
    ends = {
        'class_embedding': 'cls_embedding.embedding_table',
        'network.embedding': 'tok_embeddings',
        'network.norm': 'norm',
        'network.head': 'output',
    }
    for key, value in tensors.items():
        name = key.removeprefix(PREFIX).removesuffix('.weight')
        found = re.fullmatch(r'network\.blocks\.(\d+)\.(\w+)', name)
        if name in ends:
            restored[f'{ends[name]}.weight'] = value
        elif found and found[2] == 'gate_up':
            for part, half in zip(('w1', 'w3'), value.chunk(2), strict=True):
                restored[f'layers.{found[1]}.feed_forward.{part}.weight'] = half
        elif found and found[2] in BACK:
            restored[f'layers.{found[1]}.{BACK[found[2]]}.weight'] = value
        else:
            raise UserError(
                f"'{key}' is not a tensor of a LlamaGen transformer", 'Give those of a LlamaNetwork with a class prefix.'
            )
    return restored
