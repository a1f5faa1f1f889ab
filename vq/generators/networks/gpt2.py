"""A GPT-2-style causal transformer (Radford et al. 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.generators.networks.cache import attend_cached, attend_whole
from vq.generators.networks.stack import BlockStack
from vq.nn.packed import Product, product_of
from vq.nn.recompute import Recomputed
from vq.registries import VQCausalNetworkRegistry


class GPT2Block(Recomputed):
    """x + attention(norm(x)), then x + W_2 gelu(W_1 norm(x)): layer norms, biases, the tanh form of GELU."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, dropout: float, norm_eps: float) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.random = dropout > 0
        self.attention_norm = nn.LayerNorm(dim, norm_eps)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.ffn_norm = nn.LayerNorm(dim, norm_eps)
        self.up = nn.Linear(dim, ffn_dim)
        self.down = nn.Linear(ffn_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def compute(self, x: Tensor) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in self.project(x).chunk(3, dim=2))  # (B, heads, T, D) each
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.finish(x, mixed.transpose(1, 2).flatten(2))

    def project(self, x: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T, 3 * heads, D): queries, keys, values."""
        y: Tensor = self.qkv(self.attention_norm(x)).view(*x.shape[:-1], -1, self.head_dim)
        return y

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The part of the block after attention."""
        x = x + self.dropout(self.out(mixed))
        hidden = F.gelu(self.up(self.ffn_norm(x)), approximate='tanh')
        y: Tensor = x + self.dropout(self.down(hidden))
        return y

    def products(self, rows: int) -> list[Product]:
        """The products of ``step``: queries, keys and values; out; up; down."""
        first, second = product_of(self.qkv, rows, self.attention_norm), product_of(self.up, rows, self.ffn_norm)
        return [first, product_of(self.out, rows), second, product_of(self.down, rows)]

    def step(self, x: Tensor, start: int, own: list[Product], write: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """x (B * t, dim) attends to the cache; ``write`` (B, 2 * heads, t, D) is the cache slot of its keys and values."""
        qkv_of, out_of, up_of, down_of = own
        qkv = qkv_of(x).view(write.shape[0], write.shape[2], -1, self.head_dim)
        write.copy_(qkv[:, :, self.heads :].transpose(1, 2))
        mixed = attend_cached(qkv[:, :, : self.heads], start, keys, values)
        x = out_of.added(mixed.view(x.shape), x)
        return down_of.added(F.gelu(up_of(x), approximate='tanh'), x)

    def step_at(self, x: Tensor, position: Tensor, seen: Tensor, pairs: Tensor) -> Tensor:
        """x (B, 1, dim) at a position (1,) whose number is on the device; ``pairs`` is the whole cache of the layer."""
        qkv = self.project(x)
        pairs.index_copy_(2, position, qkv[:, :, self.heads :].transpose(1, 2).to(pairs.dtype))
        return self.finish(x, attend_whole(qkv[:, :, : self.heads], seen, pairs))


@VQCausalNetworkRegistry.register_()
class GPT2Network(BlockStack):
    """Learned positions, pre-norm layer norms, GELU, biases; ``tied``: the head is the embedding.

    Weights start as N(0, 0.02), as in GPT-2; in layers that add to the residual stream the deviation is divided by
    sqrt(2 * depth). An untied head starts at zero.
    """

    def __init__(
        self,
        vocabulary: int,
        dim: int,
        depth: int,
        heads: int,
        length: int,
        ffn_dim: int | None = None,
        dropout: float = 0.0,
        norm_eps: float = 1e-5,
        tied: bool = True,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f'GPT2Network of {dim} channels with {heads} heads', 'Give heads that divide dim.')
        self.vocabulary, self.dim, self.depth, self.length = vocabulary, dim, depth, length
        self.heads = self.kv_heads = heads
        self.tied = tied
        self.embedding = nn.Embedding(vocabulary, dim)
        self.positions = nn.Parameter(torch.empty(length, dim))
        self.dropout = nn.Dropout(dropout)
        width = 4 * dim if ffn_dim is None else ffn_dim
        self.blocks = nn.ModuleList(GPT2Block(dim, heads, width, dropout, norm_eps) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, norm_eps)
        self.head = nn.Linear(dim, vocabulary, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self._blocks():
            for layer in (block.out, block.down):
                nn.init.normal_(layer.weight, std=0.02 / (2 * self.depth) ** 0.5)
        nn.init.normal_(self.positions, std=0.02)
        if not self.tied:
            nn.init.zeros_(self.head.weight)

    def enter(self, embedded: Tensor) -> Tensor:
        x: Tensor = self.dropout(embedded + self.positions[: embedded.shape[1]])
        return x

    def enter_from(self, embedded: Tensor, start: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        return embedded + self.positions[start : start + embedded.shape[1]], ()

    def enter_at(self, embedded: Tensor, position: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return embedded + self.positions.index_select(0, position), ()
