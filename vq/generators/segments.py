"""The segment of a network's vocabulary that holds the tokens of each position.

Tokens of an image are in raster order, those of one cell (residual codes) one after the other. Depth d of n has its own
segment of the vocabulary: position t holds ids from starts[t mod n] to starts[t mod n] + sizes[t mod n] - 1.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


class Segments:
    """``sizes``: number of tokens per depth. ``first``: id of token 0 of depth 0; smaller ids are not image tokens."""

    def __init__(self, sizes: tuple[int, ...], first: int = 0) -> None:
        self.sizes = sizes
        self.depth = len(sizes)
        *self.starts, self.end = itertools.accumulate(sizes, initial=first)
        self.equal = len(set(sizes)) == 1

    def start(self, position: int) -> int:
        return self.starts[position % self.depth]

    def at(self, logits: Tensor, position: int) -> Tensor:
        """Logits (B, V) of the network at a position -> (B, size) of the tokens that the position can hold; a view."""
        return logits.narrow(-1, self.start(position), self.sizes[position % self.depth])

    def ids(self, tokens: Tensor, position: int = 0) -> Tensor:
        """Tokens (B, T) of the positions from ``position`` on -> ids in the vocabulary."""
        count = tokens.shape[1]
        if self.depth == 1 or count == 1:
            return tokens + self.start(position) if self.start(position) else tokens
        return tokens + self._starts(position, count, tokens.device)

    def select(self, logits: Tensor) -> Tensor:
        """Logits (B, L, V) of positions 0 to L - 1 -> (B, L, size) of the tokens of each.

        If the depths differ in size: (B, L, sum of sizes), -inf outside of the segment of the position.
        """
        first = self.starts[0]
        image = logits[..., first : self.end]
        if self.depth == 1:
            return image
        rows, length, _ = image.shape
        if self.equal:
            cells = image.view(rows, length // self.depth, self.depth, self.depth, self.sizes[0])
            return torch.stack([cells[:, :, d, d] for d in range(self.depth)], 2).reshape(rows, length, self.sizes[0])
        ids = torch.arange(first, self.end, device=logits.device)
        starts = self._starts(0, length, logits.device)[:, None]
        ends = starts + torch.tensor(self.sizes, device=logits.device).repeat(length // self.depth)[:, None]
        return image.masked_fill((ids < starts) | (ids >= ends), -torch.inf)

    def targets(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L) -> their indices in the last axis of the result of ``select``."""
        return tokens if self.equal else self.ids(tokens) - self.starts[0]

    def _starts(self, position: int, count: int, device: torch.device) -> Tensor:
        turn = [self.start(position + depth) for depth in range(self.depth)]
        return torch.tensor(turn, device=device).repeat(-(-count // self.depth))[:count]
