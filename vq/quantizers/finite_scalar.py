"""Finite scalar quantization: every channel is rounded to one of a few levels. No codebook is learned."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Quantized
from vq.interfaces import Quantizer
from vq.nn.precision import no_autocast
from vq.quantizers.checks import check_tokens, check_width
from vq.registries import VQQuantizerRegistry

EPSILON = 1e-3


@VQQuantizerRegistry.register_()
class FiniteScalarQuantizer(Quantizer):
    """v = (tanh(x + atanh(o / m)) m - o) / 2,  z = round(v) / floor(L / 2),  straight-through, per channel.

    (Mentzer et al. 2023.) L is the channel's number of levels, o = (L - 1) mod 2, and m = (L - 1)(1 - 1e-3) with
    ``bound='inner'``, or (L - 1)(1 + 1e-3) with ``'outer'`` (vector-quantize-pytorch's choice). A token is
    sum_i digit_i prod_(j<i) L_j with digit = round(v) + floor(L / 2): the first channel is the least significant.
    Codes are computed from tokens, never stored, and there are no losses.

    With these bounds an even number of levels spans [-1, 1 - 2 / L]. With ``bound='symmetric'`` any number of levels spans
    [-1, 1] (vector-quantize-pytorch's ``preserve_symmetry``): v = tanh(x) (L - 1) / 2,  digit = floor(v + L / 2),
    z = 2 digit / (L - 1) - 1.
    """

    rounds = True

    middle: Tensor  # (C,) int64, the digit of the code 0: floor(L / 2); with 'symmetric' in half digits: L - 1
    basis: Tensor  # (C,) int64, product of the levels of the channels before
    sizes: Tensor  # (C,) int64
    scale: Tensor  # (C,) m
    offset: Tensor  # (C,) o
    shift: Tensor  # (C,) atanh(o / m)

    def __init__(self, levels: list[int], bound: Literal['inner', 'outer', 'symmetric'] = 'inner') -> None:
        super().__init__()
        if bound not in ('inner', 'outer', 'symmetric'):
            raise ConfigError(f"bound is '{bound}'", "It is 'inner', 'outer' or 'symmetric'.")
        least = 3 if bound == 'inner' else 2
        if not levels or min(levels) < least:
            raise ConfigError(f"levels {list(levels)} with bound='{bound}'", f'Every channel needs at least {least} levels.')
        if math.prod(levels) >= 2**62:
            raise ConfigError(
                f'levels {list(levels)} make more codes than 64-bit tokens can count', 'Use fewer channels or levels.'
            )
        self.levels = tuple(levels)
        self.bound = bound
        self.digit = 2 if bound == 'symmetric' else 1  # in the unit of ``middle``
        self.embedding_dim = len(levels)
        self.codebook_size = math.prod(levels)
        self.loss_weights: dict[str, float] = {}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the constants; also called after a move off the meta device."""
        symmetric = self.bound == 'symmetric'
        margin = {'inner': 1 - EPSILON, 'outer': 1 + EPSILON, 'symmetric': 1.0}[self.bound]
        scale = [(level - 1) * margin for level in self.levels]
        offset = [0 if symmetric else (level - 1) % 2 for level in self.levels]
        middle = [level - 1 if symmetric else level // 2 for level in self.levels]
        basis = [math.prod(self.levels[:index]) for index in range(len(self.levels))]
        device = self.basis.device if 'basis' in self._buffers else None
        for name, integers in (('sizes', self.levels), ('middle', middle), ('basis', basis)):
            self.register_buffer(name, torch.tensor(integers, dtype=torch.int64, device=device), persistent=False)
        shift = [math.atanh(o / m) for o, m in zip(offset, scale, strict=True)]
        for name, reals in (('scale', scale), ('offset', offset), ('shift', shift)):
            self.register_buffer(name, torch.tensor(reals, dtype=torch.float32, device=device), persistent=False)

    @property
    def bits(self) -> float:
        return math.log2(self.codebook_size)

    def bounded(self, features: Tensor) -> Tensor:
        """Features (..., C), bounded to the range that rounds to the levels."""
        return (torch.tanh(features.float() + self.shift) * self.scale - self.offset) / 2

    def unrounded(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.bounded(features) * self.digit / self.middle, self.digit / self.middle

    def lookup(self, tokens: Tensor) -> Tensor:
        check_tokens(tokens, self.codebook_size, type(self).__name__)
        digits = tokens.unsqueeze(-1) // self.basis % self.sizes  # (..., C)
        return self._codes(digits)

    def _codes(self, digits: Tensor) -> Tensor:
        return (digits * self.digit - self.middle).float() / self.middle

    def _round(self, v: Tensor) -> Tensor:
        """v (..., C) -> the nearest digits, int64."""
        if self.bound == 'symmetric':
            return torch.floor(v + self.sizes / 2).long()
        return torch.round(v).long() + self.middle

    def forward(self, features: Tensor) -> Quantized:
        check_width(features, self.embedding_dim, type(self).__name__)
        with no_autocast(features.device):
            v = self.bounded(features)  # (..., C)
            # integers from here on: in half precision a token would be rounded to that of another code
            digits = self._round(v.detach()).clamp_min(0).minimum(self.sizes - 1)
            tokens = (digits * self.basis).sum(-1)
            return Quantized(self._codes(digits) + (v - v.detach()) * self.digit / self.middle, tokens)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, bound='{self.bound}', codebook_size={self.codebook_size}"
