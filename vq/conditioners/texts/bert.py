"""The text transformer of latent diffusion, which was trained with its denoiser."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.conditioners.texts.base import FrozenText, check_sizes
from vq.conditioners.texts.tokens import Tokenized
from vq.registries import VQTextEncoderRegistry

FILES = ('vocab.txt',)
PREFIXES = ('cond_stage_model.transformer.', 'model.', '')  # of CompVis' checkpoints, of diffusers
# of x-transformers in CompVis' files, whose layers are attention and MLP in turn, and of diffusers
COMPVIS = {
    (0, '0'): 'norm1',
    (0, '1.to_q'): 'q',
    (0, '1.to_k'): 'k',
    (0, '1.to_v'): 'v',
    (0, '1.to_out'): 'proj',
    (1, '0'): 'norm2',
    (1, '1.net.0.0'): 'into',
    (1, '1.net.2'): 'out',
}
DIFFUSERS = {
    'self_attn_layer_norm': 'norm1',
    'self_attn.q_proj': 'q',
    'self_attn.k_proj': 'k',
    'self_attn.v_proj': 'v',
    'self_attn.out_proj': 'proj',
    'final_layer_norm': 'norm2',
    'fc1': 'into',
    'fc2': 'out',
}
ENDS = {
    'token_emb.weight': 'tokens.weight',
    'pos_emb.emb.weight': 'positions',
    'embed_tokens.weight': 'tokens.weight',
    'embed_positions.weight': 'positions',
    **{f'{theirs}.{leaf}': f'norm.{leaf}' for theirs in ('norm', 'layer_norm') for leaf in ('weight', 'bias')},
}


def _open(vocabulary: str) -> Any:
    from transformers import BertTokenizer

    return BertTokenizer(vocabulary)


class Block(nn.Module):
    """h = x + attention(norm1(x)),  y = h + W2 gelu(W1 norm2(h)); heads of ``head_dim`` channels, whatever ``dim`` is."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q, self.k, self.v = (nn.Linear(dim, inner, bias=False) for _ in range(3))
        self.proj, self.into, self.out = nn.Linear(inner, dim), nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm1(x)
        q, k, v = (part(normal).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y: Tensor = x + self.out(F.gelu(self.into(self.norm2(x))))
        return y


class Network(nn.Module):
    """Tokens (B, L) -> (B, L, dim)."""

    def __init__(self, dim: int, depth: int, heads: int, head_dim: int, length: int, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, dim), nn.Parameter(torch.randn(length, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, head_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.norm(x)
        return y


@VQTextEncoderRegistry.register_()
class BERTText(FrozenText):
    """A text -> its tokens after a transformer and a norm, as the text-to-image model of latent diffusion takes them
    (Rombach et al. 2022): words of BERT, no mask, 77 tokens of 1,280 channels, 32 layers.

    ``file``: the whole checkpoint of CompVis, or the folder's file of diffusers. ``tokenizer``: the folder of BERT's
    vocab.txt, or 'bytes', which is for random weights. Both below the folder of pretrained files.
    """

    def __init__(
        self,
        dim: int = 1280,
        depth: int = 32,
        heads: int = 8,
        head_dim: int = 64,
        length: int = 77,
        vocabulary: int = 30522,
        file: str = 'ldm/txt2img-f8-large.ckpt',
        tokenizer: str = 'ldm/bert',
    ) -> None:
        super().__init__()
        check_sizes('BERTText', dim, depth, heads, length)
        self.dim = dim
        tokenized = Tokenized(tokenizer, FILES, _open, length, vocabulary, padding=0)
        self.settle(Network(dim, depth, heads, head_dim, length, vocabulary), tokenized, file)

    def run(self, ids: Tensor) -> Tensor:
        found: Tensor = self.network(ids)
        return found

    def renamed(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        prefix = next(one for one in PREFIXES if any(key.startswith(one) for key in published))
        found: dict[str, Tensor] = {}
        for whole, value in published.items():
            key = whole.removeprefix(prefix)
            layer = re.fullmatch(r'(attn_layers\.)?layers\.(\d+)\.(.+)\.(weight|bias)', key)
            if not whole.startswith(prefix) or key.startswith('to_logits.'):
                continue
            if layer is None:
                found[ENDS.get(key, key)] = value
                continue
            of_compvis, number = layer[1] is not None, int(layer[2])
            name = COMPVIS.get((number % 2, layer[3])) if of_compvis else DIFFUSERS.get(layer[3])
            found[f'blocks.{number // 2 if of_compvis else number}.{name}.{layer[4]}'] = value
        return found
