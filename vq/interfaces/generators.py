"""Generators of tokens, and the networks inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.errors import ConfigError
from vq.core.records import Predicted
from vq.core.specs import TokenSpec

LEAVE_OUT = 'Leave the old setting out of the config: it follows from the tokenizer.'


class CausalNetwork(nn.Module):
    """Embeddings (B, T, dim) -> logits (B, T, vocabulary) of the next token: position t sees the positions 0 to t."""

    dim: int
    vocabulary: int  # number of ids that can be embedded, and of logits
    length: int  # largest number of positions
    compiles = 'forward'

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
    """Learns the tokens (B, *tokens.shape) of images of a category, and samples new tokens."""

    tokens: TokenSpec
    classes: int  # categories are below it; 0: unconditional
    network: nn.Module  # the transformer; training calls its ``forward``

    @staticmethod
    def build_pre_hook(config: Any, registry: Any, item: Any) -> Any:
        """Read the settings of runs and converted files of older versions: ``token_shape``, ``codebook_size`` and
        ``codebook_sizes`` in place of ``cells`` and ``codebooks``."""
        shape, size, sizes = (config.pop(name, None) for name in ('token_shape', 'codebook_size', 'codebook_sizes'))
        if sizes or size is not None:
            found = tuple(sizes) if sizes else (size,)
            if max(config.setdefault('codebooks', found)) != max(found):
                raise ConfigError(f'codebook_size is {max(found)}, and codebooks are {config["codebooks"]}', LEAVE_OUT)
        if isinstance(config.get('codebooks'), int):
            config['codebooks'] = (config['codebooks'],)
        if shape is not None:
            several = len(config.get('codebooks', ())) > 1
            cells = config.setdefault('cells', tuple(shape[:-1] if several else shape))
            if tuple(cells) != tuple(shape[: len(cells)]):
                raise ConfigError(f'token_shape is {tuple(shape)}, and cells are {tuple(cells)}', LEAVE_OUT)
        return config

    def forward(self, tokens: Tensor, condition: Condition | None) -> Predicted:
        """In training, random choices (labels to drop, positions to mask) are drawn from torch's global generator."""
        raise NotImplementedError

    def drawable(self, predicted: Predicted) -> Tensor:
        """The logits of the tokens that each position can take, (B, L, K)."""
        return predicted.logits

    def generate(self, wanted: Wanted, sampler: Callable[[Tensor, Tensor], Tensor], guidance: Callable[..., float]) -> Tensor:
        """New tokens (B, *tokens.shape) int64. See also ``vq/sampling/tokens.py`` and ``vq/sampling/guidance.py``."""
        raise NotImplementedError
