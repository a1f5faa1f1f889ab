"""A folder in the Hugging Face Llama layout: config.json, generation_config.json, model.safetensors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.io import tensorfile
from vq.io.atomic import atomic_file, atomic_folder, write_json

NAMES = {'out': 'self_attn.o_proj', 'down': 'mlp.down_proj', 'attention_norm': 'input_layernorm'}
NAMES['ffn_norm'] = 'post_attention_layernorm'
ENDS = {'embedding': 'model.embed_tokens', 'norm': 'model.norm', 'head': 'lm_head'}


@dataclasses.dataclass(frozen=True)
class LlamaShape:
    """What cannot be inferred from the shapes of the tensors."""

    heads: int
    kv_heads: int
    length: int
    norm_eps: float
    rope_base: float


def halves(weight: Tensor, heads: int) -> Tensor:
    """Reorder the rows of a query or key weight (heads * D, dim) for RoPE.

    Here channels 2i and 2i + 1 are rotated as a pair; in Hugging Face's Llama channels i and i + D / 2 are.
    """
    rows, dim = weight.shape
    return weight.view(heads, rows // heads // 2, 2, dim).transpose(1, 2).reshape(rows, dim)


def llama_tensors(network: Mapping[str, Tensor], shape: LlamaShape, extra: Tensor | None = None) -> dict[str, Tensor]:
    """The state dict of a ``LlamaNetwork`` under the names of LlamaForCausalLM.

    ``extra`` (n, dim) are appended as embeddings of n more ids. Their rows of the head are zeros: these ids are inputs only.
    """
    made: dict[str, Tensor] = {}
    for key, value in network.items():
        name = key.removesuffix('.weight')
        found = re.fullmatch(r'blocks\.(\d+)\.(\w+)', name)
        if found is None:
            made[f'{ENDS[name]}.weight'] = value
            continue
        layer, part = f'model.layers.{found[1]}', found[2]
        if part == 'qkv':
            head_dim = value.shape[0] // (shape.heads + 2 * shape.kv_heads)
            q, k, v = torch.split(value, [shape.heads * head_dim, *[shape.kv_heads * head_dim] * 2])
            made[f'{layer}.self_attn.q_proj.weight'] = halves(q, shape.heads)
            made[f'{layer}.self_attn.k_proj.weight'] = halves(k, shape.kv_heads)
            made[f'{layer}.self_attn.v_proj.weight'] = v
        elif part == 'gate_up':
            made[f'{layer}.mlp.gate_proj.weight'], made[f'{layer}.mlp.up_proj.weight'] = value.chunk(2)
        else:
            made[f'{layer}.{NAMES[part]}.weight'] = value
    if extra is not None:
        embedding, head = made['model.embed_tokens.weight'], made['lm_head.weight']
        made['model.embed_tokens.weight'] = torch.cat([embedding, extra.to(embedding)])
        made['lm_head.weight'] = torch.cat([head, head.new_zeros(extra.shape)])
    return {key: value.detach().contiguous() for key, value in made.items()}


def llama_config(tensors: Mapping[str, Tensor], shape: LlamaShape) -> dict[str, Any]:
    vocabulary, dim = tensors['model.embed_tokens.weight'].shape
    return {
        'architectures': ['LlamaForCausalLM'],
        'model_type': 'llama',
        'vocab_size': vocabulary,
        'hidden_size': dim,
        'intermediate_size': tensors['model.layers.0.mlp.gate_proj.weight'].shape[0],
        'num_hidden_layers': sum(key.endswith('.self_attn.v_proj.weight') for key in tensors),
        'num_attention_heads': shape.heads,
        'num_key_value_heads': shape.kv_heads,
        'head_dim': dim // shape.heads,
        'hidden_act': 'silu',
        'max_position_embeddings': shape.length,
        'rms_norm_eps': shape.norm_eps,
        'rope_theta': shape.rope_base,
        'rope_parameters': {'rope_type': 'default', 'rope_theta': shape.rope_base},
        'attention_bias': False,
        'mlp_bias': False,
        'tie_word_embeddings': False,
        'torch_dtype': str(tensors['lm_head.weight'].dtype).removeprefix('torch.'),
        'bos_token_id': None,
        'eos_token_id': None,
        'pad_token_id': None,
    }


def write_llama(
    folder: Path, tensors: Mapping[str, Tensor], shape: LlamaShape, generation: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Write ``folder`` atomically.

    ``generation`` is the content of generation_config.json, ``about`` that of vq.json, which says what the ids mean.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f'{folder} already exists', 'Give a new folder, or remove that one.')
    with atomic_folder(folder) as aside:
        write_json(aside / 'config.json', llama_config(tensors, shape))
        write_json(aside / 'generation_config.json', dict(generation))
        write_json(aside / 'vq.json', dict(about))
        with atomic_file(aside / 'model.safetensors', tensorfile.size_of(tensors)) as writer:
            tensorfile.write_tensors(writer, tensors, {'format': 'pt'})
