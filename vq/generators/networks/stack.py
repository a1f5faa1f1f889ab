"""The base of causal transformers: an embedding, a stack of blocks, a norm, a head, and a key-value cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.generators.networks.cache import Cache, make_pairs
from vq.interfaces import CausalNetwork
from vq.nn.packed import product_of


class BlockStack(CausalNetwork):
    """logits = head(norm(block_n(... block_1(x)))).

    Networks differ in their blocks, and in how they encode positions: added to the embeddings, or as the arguments ``more``
    of ``block.step(x, start, *more, products, write, keys, values)`` and ``block.step_at(x, *more, position, seen, pairs)``.
    """

    embedding: nn.Embedding
    blocks: nn.ModuleList
    norm: nn.Module
    head: nn.Linear
    depth: int
    heads: int
    kv_heads: int
    remedy = 'Set a larger length.'  # the hint of the error about too few positions

    def enter(self, embedded: Tensor) -> Tensor:
        """Embeddings (B, T, dim) of the first positions -> input of the first block."""
        raise NotImplementedError

    def enter_from(self, embedded: Tensor, start: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Embeddings (B, t, dim) of the positions from ``start`` on -> ``x`` and ``more`` of ``block.step``."""
        raise NotImplementedError

    def enter_at(self, embedded: Tensor, position: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Embeddings (B, 1, dim) of one position, whose number (1,) is on the device -> ``x`` and ``more``."""
        raise NotImplementedError

    def embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(ids)
        return embedded

    def forward(self, embedded: Tensor) -> Tensor:
        self._check(embedded.shape[1])
        x = self.enter(embedded)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    # decoding, one position after the other

    def make_cache(self, rows: int, length: int) -> Cache:
        self._check(length)
        pairs = make_pairs(self.head.weight, self.depth, rows, self.kv_heads, length, self.dim // self.heads)
        return Cache(pairs, [block.products(rows) for block in self._blocks()], product_of(self.head, rows, self.norm))

    @torch.no_grad()
    def step(self, embedded: Tensor, start: int, cache: Cache) -> Tensor:
        rows, count, dim = embedded.shape
        x, more = self.enter_from(embedded, start)
        x = x.reshape(-1, dim)
        for block, own, layer in zip(self._blocks(), cache.products, cache.layers(start, start + count), strict=True):
            x = block.step(x, start, *more, own, *layer)
        return cache.head(x if count == 1 else x.view(rows, count, dim)[:, -1]).float()

    @torch.no_grad()
    def step_at(self, embedded: Tensor, position: Tensor, cache: Cache) -> Tensor:
        """``step`` of one position (B, 1, dim) whose number, int64 (), is on the device: same kernels at every position.

        So a CUDA graph or a compiled function can contain it. It reads the whole cache and masks the unwritten positions.
        """
        at = position.reshape(1)
        seen = torch.arange(cache.length, device=embedded.device) <= position
        x, more = self.enter_at(embedded, at)
        for block, pairs in zip(self._blocks(), cache.pairs.unbind(), strict=True):
            x = block.step_at(x, *more, at, seen, pairs)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits.float()

    def _blocks(self) -> Any:
        return self.blocks  # Any: a ModuleList is typed as plain modules

    def _check(self, count: int) -> None:
        if count > self.length:
            raise ConfigError(f'{type(self).__name__} was given {count} positions, and has {self.length}', self.remedy)
