"""The codebook in the form in which codes are searched: whatever its values, scores neither overflow nor vanish.

Codes are centred (L2) or divided by their lengths (cosine), slice by slice, never the whole codebook at once. Two kinds of
codebooks need more:

- Codes that are not finite, or larger than ``LARGEST``, are never chosen: in their place the search sees copies of the first
  other code. If no code is left, the token is 0.
- Very large or very small codes, L2: codes and features are multiplied by a power of two, which rounds nothing. Features far
  larger than all codes are multiplied by a smaller one: the length of the codes does not matter then. Cosine: every feature
  has a power of two of its own.

On the CPU the host looks at the values and leaves this out where it is not needed. On other devices looking is a host sync, so
it is always done. It never changes the result of a usual codebook.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vq.nn.lazy_tensors import is_lazy, power_of_two

LARGEST = 2.0**90  # about 1e27
SMALLEST = 2.0**-100  # about 1e-30; for cosine, codes that are shorter count as this long
LOW, HIGH = -30, 40  # powers of two: if the longest code is between them, nothing is multiplied
MOST_UP = 60  # powers of two that small codes are multiplied by
LARGE_FEATURES, LARGE_BESIDE_SMALL_CODES = 70, 38  # powers of two: no feature is larger, after it was multiplied
SQUARES = 2**17  # per reused buffer: page faults of a fresh one would cost more than the squares
SAMPLED_CODES = 1024  # enough to find an offset that costs digits
TINY = 2.0**-126


def reads_are_free(device: torch.device) -> bool:
    """Whether the host can read values without a host sync."""
    return device.type == 'cpu'


class Codes:
    """The codebook (K, C) in the form of the matrix product, slice by slice."""

    def __init__(self, codebook: Tensor, cosine: bool, budget_bytes: int) -> None:
        self.codebook = codebook  # (K, C)
        self.cosine = cosine
        self.budget_bytes = budget_bytes
        self.centre = None if cosine else _centre(codebook)  # (C,)
        if self.centre is not None and reads_are_free(codebook.device) and not self.centre.any():
            self.centre = None
        self.usable: Tensor | None = None  # (K,) bool; None: all codes are
        self.first: Tensor | None = None  # (1,) int64, the first usable code
        self.exponent: Tensor | None = None  # () of the power of two for codes and features, L2; None: 0
        self.lengths: Tensor | None = None  # (K,) for cosine
        self.bias = torch.zeros(len(self), device=codebook.device)  # (K,) -|c|^2 / 2; for cosine zero: all lengths are one
        if not reads_are_free(codebook.device) or not self._are_usual():
            self._prepare()

    def __len__(self) -> int:
        return len(self.codebook)

    @property
    def moved(self) -> bool:
        """Whether a tile is a copy of codes."""
        plain = self.centre is None and self.exponent is None and self.lengths is None and self.usable is None
        return not plain or self.codebook.dtype != torch.float32

    def tile(self, start: int, width: int) -> Tensor:
        """(width, C). The last tile may have fewer codes."""
        codes = self._usable_codes(start, width)
        if self.lengths is not None:
            return codes / self.lengths[start : start + width, None]
        if self.centre is not None:
            codes = codes - self.centre
        return codes if self.exponent is None else codes * _power(self.exponent)

    def rows(self, features: Tensor) -> Tensor:
        """Features (n, C) in fp32 as the matrix product needs them."""
        rows = features.float() if self.centre is None else features.float() - self.centre
        if reads_are_free(features.device) and self.exponent is None and self._are_usual_features(features):
            return rows
        factors = self.row_factors(features)[:, None]
        return rows * factors if self.centre is None else rows.mul_(factors)

    def row_factors(self, features: Tensor) -> Tensor:
        """The power of two (n,) by which each of the features (n, C) is multiplied after the centre was subtracted."""
        largest = torch.linalg.vector_norm(features, float('inf'), dim=1, dtype=torch.float32)
        if self.centre is not None:
            largest = largest + self.centre.abs().amax(dim=0)  # without dim, torch_xla 2.9 reduces nothing
        own = torch.ceil(torch.log2(largest.clamp_min(TINY)))  # (n,)
        if self.cosine:
            wanted, plain = -own, torch.zeros_like(own)
        else:
            plain = torch.zeros_like(own) if self.exponent is None else self.exponent.expand_as(own)
            limit = torch.where(plain > 0, LARGE_BESIDE_SMALL_CODES, LARGE_FEATURES)
            wanted = torch.minimum(plain, limit - own)
        return _power(torch.where(largest.isfinite(), wanted, plain))

    def chosen(self, tokens: Tensor) -> Tensor:
        """Tokens (n,) with the first usable code in place of others: copies of it were searched there."""
        if self.usable is None or self.first is None:
            return tokens
        return torch.where(self.usable[tokens], tokens, self.first)

    def _usable_codes(self, start: int, width: int) -> Tensor:
        codes = self.codebook[start : start + width]
        if self.usable is not None and self.first is not None:
            codes = torch.where(self.usable[start : start + width, None], codes, self.codebook.index_select(0, self.first))
        return codes.float()

    def _slices(self, most: int) -> tuple[int, list[int]]:
        """The height of equally high slices, and their starts. They have at most ``most`` values. Sums over slices of
        another height can round differently, and equal codes would not have equal sums. The last two slices can overlap.
        """
        height = max(min(2, len(self)), min(len(self), most // self.codebook.shape[1]))
        starts = list(range(0, len(self) - height + 1, height))
        return height, starts if starts[-1] + height == len(self) else [*starts, len(self) - height]

    def _measure(self) -> None:
        """Fill the bias, or the lengths."""
        codebook = self.codebook
        if self.cosine:
            self.lengths = torch.linalg.vector_norm(codebook, dim=1, dtype=torch.float32)
            return
        most = self.budget_bytes // 16
        height, starts = self._slices(min(SQUARES, most) if codebook.device.type == 'cpu' else most)
        squares = torch.empty(height, codebook.shape[1], device=codebook.device)
        for start in starts:
            tile = self.tile(start, height)
            torch.sum(torch.mul(tile, tile, out=squares), dim=1, out=self.bias[start : start + height])
        self.bias.mul_(-0.5)

    def _are_usual(self) -> bool:
        """Measure, and see whether this was all. CPU only."""
        self._measure()
        if self.lengths is not None:
            shortest, longest = (float(value) for value in self.lengths.aminmax())
            return shortest >= 2.0**LOW and longest <= 2.0**HIGH  # false for nan
        longest = -2 * float(self.bias.min())
        return longest >= 4.0**LOW and longest <= 4.0**HIGH  # false for nan

    def _are_usual_features(self, features: Tensor) -> bool:
        if not features.numel():
            return True
        if self.cosine:
            shortest, longest = (float(value) for value in torch.linalg.vector_norm(features, float('inf'), dim=1).aminmax())
            return shortest >= 2.0**LOW and longest <= 2.0**HIGH
        least, most = (float(value) for value in features.aminmax())
        return -least <= 2.0 ** (LARGE_FEATURES - 1) and most <= 2.0 ** (LARGE_FEATURES - 1)  # false for nan

    def _prepare(self) -> None:
        """Find the usable codes and the power of two, and measure with them."""
        self.lengths = None
        largest = torch.empty(len(self), device=self.codebook.device)  # (K,) of each code
        height, starts = self._slices(self.budget_bytes // 16)
        for start in starts:
            codes = self.codebook[start : start + height].float()
            codes = codes if self.centre is None else codes - self.centre
            largest[start : start + height] = torch.linalg.vector_norm(codes, float('inf'), dim=1)
        self.usable = largest <= LARGEST  # false for nan
        self.first = self.usable.to(torch.int32).argmax()[None]
        largest = torch.where(self.usable, largest, largest.index_select(0, self.first))
        if self.cosine:
            scale = _power(torch.floor(torch.log2(largest.clamp(SMALLEST, LARGEST))))
            self.lengths = torch.empty_like(largest)
            for start in starts:
                here = slice(start, start + height)
                codes = self._usable_codes(start, height) / scale[here, None]
                self.lengths[here] = torch.linalg.vector_norm(codes, dim=1) * scale[here]
            self.lengths.clamp_min_(SMALLEST)
            return
        place = torch.floor(torch.log2(torch.where(self.usable, largest, 0).max().clamp_min(TINY)))
        up = torch.where(place < LOW, -place, 0).clamp(max=MOST_UP)
        self.exponent = up - (place - HIGH).clamp(min=0)
        self._measure()


def _power(exponent: Tensor) -> Tensor:
    """2^exponent for integral exponents."""
    return power_of_two(exponent) if is_lazy(exponent) else torch.exp2(exponent)


def _centre(codebook: Tensor) -> Tensor:
    """(C,) near the mean code, rounded to a power of two above the spread of the codes, so that codes on a grid stay on the
    grid and equal distances stay equal. Zero unless the offset exceeds the spread. Every centre gives the right argmax, so
    the mean of a sample is enough.
    """
    sample = codebook[:: max(1, len(codebook) // SAMPLED_CODES)].float()
    if reads_are_free(codebook.device):
        found = _rounded_mean(sample, sample.mean(0))
        if found.isfinite().all():
            return found
    usable = (torch.linalg.vector_norm(sample, float('inf'), dim=1) <= LARGEST)[:, None]  # (n, 1), false for nan
    mean = torch.where(usable, sample, 0).sum(0) / usable.sum().clamp_min(1)
    return _rounded_mean(torch.where(usable, sample, mean), mean)


def _rounded_mean(sample: Tensor, mean: Tensor) -> Tensor:
    """The mean (C,) rounded by the spread of the sample (n, C)."""
    spread = torch.maximum(sample.amax(0) - mean, mean - sample.amin(0)).clamp_min(1e-20)
    # never finer than the mean itself can be told: the quotient would overflow for a large constant channel
    step = _power(torch.ceil(torch.log2(torch.maximum(spread, mean.abs() * 2.0**-25))))
    return torch.round(mean / step) * step
