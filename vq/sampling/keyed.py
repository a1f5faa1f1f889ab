"""Random numbers by keys: a function of the key of a row alone, computed on the device without a generator or its state.

The words of a row are those of SplitMix64 (Steele et al. 2014) whose state starts at the key of the row, in int64 that wraps
around: the same on every device, in any batch, on any rank.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from vq.core.random import derive_seed

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 / golden ratio, as a signed number
FRACTION_BITS = 24  # of uniform numbers: those of fp32


@dataclasses.dataclass(frozen=True)
class KeyedStreams:
    """Numbers for B rows, each from a stream of its key and of a purpose, such as a seed and a step.

    ``shared``: one number in [0, 1) for all rows, on every rank.
    """

    keys: Tensor  # (B,) int64
    purpose: tuple[int | str, ...]
    shared: float = 0.0

    def uniforms(self, *shape: int, of: str) -> Tensor:
        """(B, *shape) in [0, 1)."""
        return keyed_uniforms(self.keys, *shape, purpose=(*self.purpose, of))

    def normals(self, *shape: int, of: str) -> Tensor:
        """(B, *shape), standard normal."""
        return keyed_normals(self.keys, *shape, purpose=(*self.purpose, of))


def keyed_uniforms(keys: Tensor, *shape: int, purpose: tuple[int | str, ...] = ()) -> Tensor:
    """keys int64 (B,) -> fp32 (B, *shape) in [0, 1). Other purposes, such as a seed and a step, give other numbers."""
    count = math.prod(shape)
    return fractions(words(_rows(keys, purpose), count)).view(len(keys), *shape)


def keyed_normals(keys: Tensor, *shape: int, purpose: tuple[int | str, ...] = ()) -> Tensor:
    """keys int64 (B,) -> fp32 (B, *shape), standard normal.

    Two numbers of a word, r cos a and r sin a with r = sqrt(-2 log u): u and a / 2 pi are its halves (Box and Muller 1958).
    """
    count = math.prod(shape)
    drawn = words(_rows(keys, purpose), -(-count // 2))
    radius = (_shift(drawn, 32).float().add_(0.5).mul_(2.0**-32)).log_().mul_(-2).clamp_(min=0).sqrt_()
    angle = (drawn & 0xFFFFFFFF).float().mul_(2 * math.pi * 2.0**-32)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :count].reshape(len(keys), *shape)


def _rows(keys: Tensor, purpose: tuple[int | str, ...]) -> Tensor:
    return mix(keys + derive_seed('keyed', *purpose))


def words(keys: Tensor, count: int) -> Tensor:
    """keys int64 (B,) -> int64 (B, count): words 1 to ``count`` of each key."""
    return mix(keys[:, None] + torch.arange(1, count + 1, device=keys.device) * GOLDEN)


def fractions(drawn: Tensor) -> Tensor:
    """Words -> fp32 in [0, 1), of their first 24 bits."""
    return _shift(drawn, 64 - FRACTION_BITS) * 2.0**-FRACTION_BITS


def mix(x: Tensor) -> Tensor:
    """The output function of SplitMix64, a bijection of int64."""
    x = (x ^ _shift(x, 30)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    x = (x ^ _shift(x, 27)) * (0x94D049BB133111EB - (1 << 64))
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right, of 64 bits without sign. Not ``>>``: torch_xla divides there, towards zero."""
    return torch.bitwise_right_shift(x, bits) & ((1 << (64 - bits)) - 1)
