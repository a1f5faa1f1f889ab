"""A folder in diffusers' layout of a DiT: config.json and diffusion_pytorch_model.safetensors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vq.core.errors import UserError
from vq.io import tensorfile
from vq.io.atomic import atomic_file, atomic_folder, write_json

# diffusers' frequencies of time are 10000^(-i / 127); those of the published networks and ours are period^(-i / 128)
PERIOD = 10000.0 ** (128 / 127)

BLOCK = {
    'modulation': 'norm1.linear',
    'attention.proj': 'attn1.to_out.0',
    'mlp.into': 'ff.net.0.proj',
    'mlp.out': 'ff.net.2',
}
ENDS = {'patches': 'pos_embed.proj', 'final.modulation': 'proj_out_1', 'final.linear': 'proj_out_2'}
TIME = {'time.mlp.into': 'timestep_embedder.linear_1', 'time.mlp.out': 'timestep_embedder.linear_2'}


@dataclasses.dataclass(frozen=True)
class DiTShape:
    """What cannot be inferred from the shapes of the tensors."""

    heads: int
    side: int  # of the latent
    channels: int


def dit_tensors(denoiser: Mapping[str, Tensor], table: Tensor) -> dict[str, Tensor]:
    """The state dict of a ``DiT`` in the published form, under the names of DiTTransformer2DModel.

    ``table`` (classes + 1, dim): class vectors, that of no class last. There, each block has layers of time and classes of
    its own, which are equal.
    """
    made: dict[str, Tensor] = {}
    emb: dict[str, Tensor] = {'class_embedder.embedding_table.weight': table}
    blocks: set[str] = set()
    for key, value in denoiser.items():
        name, _, leaf = key.rpartition('.')
        found = re.fullmatch(r'blocks\.(\d+)\.(.+)', name)
        if name in TIME:
            emb[f'{TIME[name]}.{leaf}'] = value
        elif found is None:
            made[f'{ENDS[name]}.{leaf}'] = value
        else:
            block = f'transformer_blocks.{found[1]}'
            blocks.add(block)
            if found[2] == 'attention.qkv':
                for part, rows in zip('qkv', value.chunk(3), strict=True):
                    made[f'{block}.attn1.to_{part}.{leaf}'] = rows
            else:
                made[f'{block}.{BLOCK[found[2]]}.{leaf}'] = value
    for block in blocks:
        # copies: a file of ours has tensors that share their memory once, which diffusers does not expect
        made |= {f'{block}.norm1.emb.{name}': value.clone() for name, value in emb.items()}
    return {key: value.detach().contiguous() for key, value in made.items()}


def dit_config(tensors: Mapping[str, Tensor], shape: DiTShape) -> dict[str, Any]:
    dim, _, patch, _ = tensors['pos_embed.proj.weight'].shape
    return {
        '_class_name': 'DiTTransformer2DModel',
        'activation_fn': 'gelu-approximate',
        'attention_bias': True,
        'attention_head_dim': dim // shape.heads,
        'dropout': 0.0,
        'in_channels': shape.channels,
        'norm_elementwise_affine': False,
        'norm_eps': 1e-6,
        'norm_num_groups': 32,
        'norm_type': 'ada_norm_zero',
        'num_attention_heads': shape.heads,
        'num_embeds_ada_norm': len(tensors['transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight']) - 1,
        'num_layers': sum(key.endswith('.norm1.linear.weight') for key in tensors),
        'out_channels': tensors['proj_out_2.weight'].shape[0] // patch**2,
        'patch_size': patch,
        'sample_size': shape.side,
        'upcast_attention': False,
    }


def write_dit(folder: Path, tensors: Mapping[str, Tensor], shape: DiTShape, about: Mapping[str, Any]) -> None:
    """Write ``folder`` atomically. ``about`` is the content of vq.json, which says what the network takes and gives."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f'{folder} already exists', 'Give a new folder, or remove that one.')
    with atomic_folder(folder) as aside:
        write_json(aside / 'config.json', dit_config(tensors, shape))
        write_json(aside / 'vq.json', dict(about))
        with atomic_file(aside / 'diffusion_pytorch_model.safetensors', tensorfile.size_of(tensors)) as writer:
            tensorfile.write_tensors(writer, tensors, {'format': 'pt'})
