"""Generators of tokens, and the networks inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from vq.core.records import Predicted, SampleRequest


class CausalNetwork(nn.Module):
    """Embeddings (B, T, dim) -> logits (B, T, vocabulary) of the next token: position t sees the positions 0 to t."""

    dim: int
    vocabulary: int  # number of ids that can be embedded, and of logits
    length: int  # largest number of positions

    def embed(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, T, dim). Apart from ``forward``: a sequence can begin with a class, which is not a token."""
        raise NotImplementedError

    def forward(self, embedded: Tensor) -> Tensor:
        raise NotImplementedError

    def make_cache(self, rows: int, length: int) -> Any:
        """An empty cache for keys and values of ``length`` positions, with the device and precision of the network."""
        raise NotImplementedError

    def step(self, embedded: Tensor, start: int, cache: Any) -> Tensor:
        """Embeddings (B, t, dim) from position ``start`` on, earlier positions in ``cache`` -> logits (B, V) of the last."""
        raise NotImplementedError


class Generator(nn.Module):
    """Learns the tokens (B, *token_shape) of images of a category, and samples new tokens."""

    token_shape: tuple[int, ...]
    codebook_size: int  # tokens are below it
    classes: int  # categories are below it; 0: unconditional
    network: nn.Module  # the transformer; training calls its ``forward``

    def forward(self, tokens: Tensor, category: Tensor | None) -> Predicted:
        """In training, random choices (labels to drop, positions to mask) are drawn from torch's global generator."""
        raise NotImplementedError

    def drawable(self, predicted: Predicted) -> Tensor:
        """The logits of the tokens that each position can take, (B, L, K)."""
        return predicted.logits

    def generate(
        self, request: SampleRequest, sampler: Callable[[Tensor, Tensor], Tensor], guidance: Callable[..., float]
    ) -> Tensor:
        """New tokens (B, *token_shape) int64. See also ``vq/sampling/tokens.py`` and ``vq/sampling/guidance.py``."""
        raise NotImplementedError
