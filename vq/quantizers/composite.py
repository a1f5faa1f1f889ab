"""Base of quantizers made of quantizers: the parts, one token axis for all of them, losses numbered by part."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.core.records import Quantized
from vq.core.specs import TokenSpec
from vq.interfaces import Quantizer


class Composite(Quantizer):
    """n quantizers, the parts, each with its own tokens: (..., n), the last axis in the order of the parts.

    ``codebook_size`` is the maximum over the parts, ``bits`` the sum over the tokens of one feature. The name of a loss
    ends in the number of its part, from 1. A part with several tokens per feature takes as many places of the token axis.
    """

    def __init__(self, quantizer: Quantizer | Sequence[Quantizer], count: int | None, shared: bool, name: str) -> None:
        """A single quantizer is copied ``count`` times, with new random codes, or used ``count`` times if ``shared``."""
        super().__init__()
        single = isinstance(quantizer, Quantizer)
        if single and (count is None or count < 1):
            raise ConfigError(
                f'{name} is {count} for one quantizer', f'Give the number of {name}, from 1 on, or a list of quantizers.'
            )
        given = [quantizer] if isinstance(quantizer, Quantizer) else list(quantizer)
        if not given or (not single and (shared or count not in (None, len(given)))):
            raise ConfigError(
                f'{len(given)} quantizers are listed, {name} is {count} and shared {shared}',
                f'List at least one, and leave {name} and shared out; or give one quantizer and its number of {name}.',
            )
        self.count = len(given) if count is None else count
        self.shared = shared
        self.parts = nn.ModuleList(given)  # a shared part is listed once: listed twice, it would be saved twice
        if single and not shared:
            self.parts.extend(_fresh_copy(given[0]) for _ in range(self.count - 1))
        odd = next((part for part in self.used() if part.feature_dim != part.embedding_dim), None)
        if odd is not None:
            raise ConfigError(
                f'{type(odd).__name__} takes {odd.feature_dim} channels and gives {odd.embedding_dim}',
                'Use parts whose feature_dim and embedding_dim are equal.',
            )
        self.widths = [_width(part) for part in self.used()]
        sizes = [size for part in self.used() for size in _each(part)]
        self.codebook_size = max(sizes)
        one_book = shared and len(given[0].codebooks) == 1
        self._codebooks = tuple(sizes[:1] if one_book else sizes)
        self.updates_in_forward = any(part.updates_in_forward for part in self.used())

    def used(self) -> Iterator[Quantizer]:
        """The parts in the order of their tokens; a shared part is yielded ``count`` times."""
        for index in range(self.count):
            part = self.parts[0 if self.shared else index]
            assert isinstance(part, Quantizer)
            yield part

    @property
    def loss_weights(self) -> Mapping[str, float]:  # type: ignore[override]
        """Read from the parts at every access, because the weights of some parts change in training."""
        return {
            f'{name}_{number}': weight
            for number, part in enumerate(self.used(), 1)
            for name, weight in part.loss_weights.items()
        }

    @property
    def bits(self) -> float:
        """Bits per feature, over all its tokens."""
        return math.fsum(part.bits for part in self.used())

    @property
    def codebooks(self) -> tuple[int, ...]:
        return self._codebooks

    def token_spec(self, cells: tuple[int, ...]) -> TokenSpec:
        """Uses of a single codebook are cells."""
        return TokenSpec(cells if len(self.codebooks) > 1 else (*cells, sum(self.widths)), self.codebooks)

    def reset_parameters(self) -> None:
        """New random codes in all parts; also called after a move off the meta device."""
        for part in self.parts:
            part.reset_parameters()  # type: ignore[operator]

    def update(self, ok: Tensor | None = None) -> None:
        for part in self.parts:
            assert isinstance(part, Quantizer)
            part.update(ok)

    def split(self, tokens: Tensor) -> list[Tensor]:
        """tokens (..., n) -> the tokens of each part; only of the first parts if n is too small for all."""
        pieces: list[Tensor] = []
        start = 0
        for width, part in zip(self.widths, self.used(), strict=True):
            if start == tokens.shape[-1]:
                break
            piece = tokens[..., start : start + width]
            pieces.append(piece if part.token_spec(()).shape else piece.squeeze(-1))
            start += width
        return pieces

    def join(self, found: Sequence[Quantized], z: Tensor) -> Quantized:
        """One ``Quantized`` of ``z`` and the tokens and losses of all parts."""
        tokens = [
            quantized.tokens if part.token_spec(()).shape else quantized.tokens.unsqueeze(-1)
            for part, quantized in zip(self.used(), found, strict=True)
        ]
        losses = {
            f'{name}_{number}': value for number, quantized in enumerate(found, 1) for name, value in quantized.losses.items()
        }
        return Quantized(z, torch.cat(tokens, dim=-1), losses)

    def extra_repr(self) -> str:
        return f'count={self.count}, shared={self.shared}'


def _fresh_copy(quantizer: Quantizer) -> Quantizer:
    twin = copy.deepcopy(quantizer)
    twin.reset_parameters()  # type: ignore[operator]
    return twin


def _width(quantizer: Quantizer) -> int:
    """The number of tokens per feature."""
    return quantizer.token_spec(()).count


def _each(quantizer: Quantizer) -> tuple[int, ...]:
    """The size of the codebook of each token of a feature."""
    return quantizer.codebooks if len(quantizer.codebooks) > 1 else quantizer.codebooks * _width(quantizer)
