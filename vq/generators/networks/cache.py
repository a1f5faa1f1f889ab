"""The key-value cache of generation, and attention over it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import RunFailure
from vq.nn.packed import Product


@dataclasses.dataclass
class Cache:
    """Keys and values of all layers in one block of memory, (depth, B, 2 * kv_heads, length, D): keys first.

    It also holds the products of each layer and of the head, with the weights at the start of generation: see ``product_of``.
    """

    pairs: Tensor
    products: list[list[Product]]
    head: Product

    @property
    def length(self) -> int:
        return self.pairs.shape[3]

    def first_rows(self, rows: int) -> Cache:
        """The cache of the first rows of the batch: a view."""
        return dataclasses.replace(self, pairs=self.pairs[:, :rows])

    def layers(self, start: int, end: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each layer: slots of positions ``start`` to ``end`` (B, 2 * kv_heads, end - start, D), keys and values up to it.

        These are views: nothing is copied.
        """
        if end > self.length:
            raise RunFailure(f'position {end - 1} of a cache with {self.length}', 'Make a longer cache.')
        keys, values = self.pairs[:, :, :, :end].chunk(2, dim=2)
        return zip(self.pairs[:, :, :, start:end].unbind(), keys.unbind(), values.unbind(), strict=True)


def make_pairs(weight: Tensor, depth: int, rows: int, kv_heads: int, length: int, head_dim: int) -> Tensor:
    """Zeros for the keys and values of ``Cache``, on the device of ``weight``, in its dtype or that of autocast."""
    dtype, kind = weight.dtype, weight.device.type
    if kind != 'meta' and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    return torch.zeros(depth, rows, 2 * kv_heads, length, head_dim, dtype=dtype, device=weight.device)


def attend_cached(q: Tensor, start: int, keys: Tensor, values: Tensor) -> Tensor:
    """q (B, t, heads, D) of the positions from ``start`` on; keys, values (B, kv_heads, start + t, D) -> (B, t, dim)."""
    rows, count, heads, head_dim = q.shape
    if q.dtype != keys.dtype:
        q = q.to(keys.dtype)
    if count == 1:
        # heads that share keys become queries at several positions: no mask, no copies of keys
        grouped = q.reshape(rows, keys.shape[1], -1, head_dim)
        return F.scaled_dot_product_attention(grouped, keys, values).reshape(rows, 1, heads * head_dim)
    mask = None
    if start:
        mask = torch.ones(count, start + count, dtype=torch.bool, device=q.device).tril(start)
    grouped_heads = keys.shape[1] != heads
    mixed = F.scaled_dot_product_attention(
        q.transpose(1, 2), keys, values, mask, is_causal=mask is None, enable_gqa=grouped_heads
    )
    return mixed.transpose(1, 2).reshape(rows, count, heads * head_dim)


def attend_whole(q: Tensor, seen: Tensor, pairs: Tensor) -> Tensor:
    """q (B, 1, heads, D) over the whole cache of a layer, masked by ``seen`` (length,) bool -> (B, 1, dim)."""
    rows, _, heads, head_dim = q.shape
    keys, values = pairs.chunk(2, dim=1)
    grouped = q.to(pairs.dtype).reshape(rows, keys.shape[1], -1, head_dim)
    mask = seen.expand(rows, 1, grouped.shape[2], -1)
    return F.scaled_dot_product_attention(grouped, keys, values, mask).reshape(rows, 1, heads * head_dim)
