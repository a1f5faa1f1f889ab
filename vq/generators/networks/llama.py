"""A Llama-style causal transformer, with LlamaGen's rotary positions on a grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.generators.networks.cache import attend_cached, attend_whole
from vq.generators.networks.stack import BlockStack
from vq.nn.packed import Product, product_of
from vq.nn.recompute import Recomputed
from vq.nn.rope import RotaryTable, rotate
from vq.nn.sizes import Size, size_named
from vq.registries import VQCausalNetworkRegistry

SIZES = {  # of LlamaGen: B, L and XL as in its published files, XXL and 3B as in its paper
    'B': Size(12, 768, 12),
    'L': Size(24, 1024, 16),
    'XL': Size(36, 1280, 20),
    'XXL': Size(48, 1536, 24),
    '3B': Size(24, 3200, 32),
}


def llama_size(name: str) -> dict[str, int]:
    """``dim``, ``depth`` and ``heads`` of a size, for the constructor of ``LlamaNetwork``."""
    return size_named(name, SIZES)


def feed_forward_width(dim: int, multiple_of: int = 256) -> int:
    """Two thirds of 4 * dim, rounded up: three matrices of this width cost as much as two of 4 * dim."""
    return -(-int(8 * dim / 3) // multiple_of) * multiple_of


class LlamaBlock(Recomputed):
    """x + attention(norm(x)), then x + W_down(silu(W_gate norm(x)) * W_up norm(x)). No biases.

    Queries, keys and values come from one matrix, gate and up from another: fewer, larger products.
    """

    def __init__(
        self, dim: int, heads: int, kv_heads: int, ffn_dim: int, dropout: float, norm_eps: float, rope: RotaryTable
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.ffn_dim = heads, kv_heads, dim // heads, ffn_dim
        self.random = dropout > 0
        self.rope = rope  # belongs to the network, shared by all blocks
        self.attention_norm = nn.RMSNorm(dim, norm_eps)
        self.qkv = nn.Linear(dim, (heads + 2 * kv_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.ffn_norm = nn.RMSNorm(dim, norm_eps)
        self.gate_up = nn.Linear(dim, 2 * ffn_dim, bias=False)
        self.down = nn.Linear(ffn_dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def compute(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.out(self.attend(self.attention_norm(x))))
        y: Tensor = x + self.dropout(self.feed_forward(x))
        return y

    def feed_forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        y: Tensor = self.down(F.silu(gate) * up)
        return y

    def project(self, x: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T, heads + 2 * kv_heads, D): queries, keys, values."""
        y: Tensor = self.qkv(x).view(*x.shape[:-1], -1, self.head_dim)
        return y

    def attend(self, x: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T, dim), causal: each position attends to itself and earlier ones."""
        qkv = self.project(x)
        turned = self.rope(qkv[:, :, : self.heads + self.kv_heads])
        q = turned[:, :, : self.heads].transpose(1, 2)  # (B, heads, T, D)
        k = turned[:, :, self.heads :].transpose(1, 2)  # (B, kv_heads, T, D)
        v = qkv[:, :, self.heads + self.kv_heads :].transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.kv_heads != self.heads)
        return mixed.transpose(1, 2).flatten(2)

    def products(self, rows: int) -> list[Product]:
        """The products of ``step``: queries, keys and values; out; gate and up; down."""
        first, second = product_of(self.qkv, rows, self.attention_norm), product_of(self.gate_up, rows, self.ffn_norm)
        return [first, product_of(self.out, rows), second, product_of(self.down, rows)]

    def step(
        self, x: Tensor, start: int, table: Tensor, own: list[Product], write: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """x (B * t, dim) attends to the cache; ``write`` (B, 2 * kv_heads, t, D) is the cache slot of its keys and values.

        ``table`` (t, 1, D / 2) complex; ``keys`` and ``values`` (B, kv_heads, start + t, D). Every operator call matters here:
        with one row, operators other than the matrix products take about a third of the time.
        """
        qkv_of, out_of, gate_up_of, down_of = own
        qkv = qkv_of(x).view(write.shape[0], write.shape[2], -1, self.head_dim)
        self.turn(qkv, table)
        write.copy_(qkv[:, :, self.heads :].transpose(1, 2))
        mixed = attend_cached(qkv[:, :, : self.heads], start, keys, values)
        x = out_of.added(mixed.view(x.shape), x)
        gate, up = gate_up_of(x).chunk(2, dim=-1)
        return down_of.added(F.silu(gate).mul_(up), x)

    def turn(self, qkv: Tensor, table: Tensor) -> None:
        """Rotate queries and keys in qkv (B, T, heads + 2 * kv_heads, D) in place, by ``table`` (T, 1, D / 2) complex."""
        both = self.heads + self.kv_heads
        if qkv.dtype == torch.float32:
            # a complex number is a pair of channels: one product rotates all queries and keys
            qkv.view(torch.complex64)[:, :, :both].mul_(table)
        else:
            qkv[:, :, :both] = rotate(qkv[:, :, :both], torch.view_as_real(table.squeeze(1)))

    def step_at(self, x: Tensor, table: Tensor, position: Tensor, seen: Tensor, pairs: Tensor) -> Tensor:
        """x (B, 1, dim) at a position whose number is on the device; ``pairs`` is the whole cache of the layer.

        ``position`` (1,) int64, ``table`` (1, D / 2, 2) its rotation, ``seen`` (length,) bool: the positions up to it.
        """
        qkv = self.project(self.attention_norm(x))
        turned = rotate(qkv[:, :, : self.heads + self.kv_heads], table)
        new = torch.cat([turned[:, :, self.heads :], qkv[:, :, self.heads + self.kv_heads :]], dim=2)
        pairs.index_copy_(2, position, new.transpose(1, 2).to(pairs.dtype))
        mixed = attend_whole(turned[:, :, : self.heads], seen, pairs)
        x = x + self.out(mixed)
        return x + self.feed_forward(x)


@VQCausalNetworkRegistry.register_()
class LlamaNetwork(BlockStack):
    """Pre-norm RMSNorm, SwiGLU, rotary positions, grouped keys and values, no biases, an untied head (LlamaGen).

    - ``grid`` (h, w): rotary positions are those of a grid in raster order, after ``prefix`` positions without rotation (the
      class). Without a grid they are those of a line, as in Hugging Face's Llama. ``length`` defaults to prefix + h * w with
      a grid, and is required without one.
    - ``rope='grid'``: an ``Autoregressive`` generator fills in ``prefix=1`` and the grid of its tokens, if these have two
      axes. Otherwise it fills in ``length``.
    - ``kv_heads``: groups of heads share keys and values; None: each head has its own.
    - ``ffn_dim``: None: two thirds of 4 * dim, rounded up to ``multiple_of``.
    - ``token_dropout`` on the embeddings, ``dropout`` on the outputs of attention and feed-forward.

    Weights start as N(0, 0.02), the head at zero: before training all ids are equally likely. ``llama_size`` has the sizes.
    """

    remedy = 'Build it with a larger length or grid.'

    @staticmethod
    def as_meant(settings: Mapping[str, Any]) -> dict[str, Any]:
        """Configs of earlier versions have a grid in place of ``rope='grid'``."""
        return {**settings, 'rope': 'grid'} if settings.get('grid') is not None else {**settings}

    def __init__(
        self,
        vocabulary: int,
        dim: int,
        depth: int,
        heads: int,
        kv_heads: int | None = None,
        length: int | None = None,
        grid: tuple[int, int] | None = None,
        prefix: int = 0,
        ffn_dim: int | None = None,
        multiple_of: int = 256,
        token_dropout: float = 0.0,
        dropout: float = 0.0,
        norm_eps: float = 1e-5,
        rope_base: float = 10000.0,
        rope: Literal['grid', 'line'] = 'line',
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if rope not in ('grid', 'line'):
            raise ConfigError(f"rope is '{rope}'", "It is 'grid' or 'line'.")
        pairs = 4 if grid is not None else 2
        if dim % heads or heads % kv_heads or (dim // heads) % pairs:
            raise ConfigError(
                f'LlamaNetwork of {dim} channels with {heads} heads, {kv_heads} of them for keys and values',
                f'heads must divide dim, kv_heads must divide heads, and {pairs} must divide the channels of a head.',
            )
        most = None if grid is None else prefix + grid[0] * grid[1]
        if length is None and most is None:
            raise ConfigError(
                'LlamaNetwork has neither length nor grid', 'Give length, the largest number of positions of a sequence.'
            )
        self.length = length if length is not None else most or 0
        if most is not None and self.length > most:
            raise ConfigError(
                f'LlamaNetwork of {self.length} positions on a grid with {most}', 'Leave length out, or give a larger grid.'
            )
        self.vocabulary, self.dim, self.depth, self.heads, self.kv_heads = vocabulary, dim, depth, heads, kv_heads
        self.ffn_dim = feed_forward_width(dim, multiple_of) if ffn_dim is None else ffn_dim
        self.grid, self.prefix, self.norm_eps, self.rope_base = grid, prefix, norm_eps, rope_base
        self.embedding = nn.Embedding(vocabulary, dim)
        self.token_dropout = nn.Dropout(token_dropout)
        self.rope = RotaryTable(self.length, dim // heads, grid, prefix, rope_base)
        self.blocks = nn.ModuleList(
            LlamaBlock(dim, heads, kv_heads, self.ffn_dim, dropout, norm_eps, self.rope) for _ in range(depth)
        )
        self.norm = nn.RMSNorm(dim, norm_eps)
        self.head = nn.Linear(dim, vocabulary, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(self.head.weight)

    def enter(self, embedded: Tensor) -> Tensor:
        x: Tensor = self.token_dropout(embedded)
        return x

    def enter_from(self, embedded: Tensor, start: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        table = self.rope.table[start : start + embedded.shape[1]]
        return embedded, (torch.view_as_complex(table).unsqueeze(1),)

    def enter_at(self, embedded: Tensor, position: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return embedded, (self.rope.table.index_select(0, position),)
