"""Exact nearest-code search in bounded memory.

    k(x) = argmin_k |x - c_k|^2 = argmax_k (x . c_k - |c_k|^2 / 2)

No root and no |x|^2: neither moves the argmax. Scores exist one small tile at a time, in one reused buffer, so memory is
the budget, never N x K. Ties go to the lowest index, and a score that is not a number wins, as in ``torch.max``. Always fp32,
with exact products, no gradients. A common offset of the codes, which moves no argmax either, is taken off first: it would
cost digits. Codes are converted, centred or normalised tile by tile, never the whole codebook.

On the CPU many features and codes take two passes. A maximum with its index takes over ten times as long as the maximum alone,
which runs in vector registers, and several times as long as the product of few channels. So the first pass keeps the best
score of each tile of codes, and the second computes the winning tile of each feature again to find the code in it. What was
measured on the way stands in benchmarks/README.md.

On CUDA one Triton kernel does it all (search_cuda.py); without Triton, and on other devices, tiles with ``torch.max``. The
environment variable ``VQ_CODE_SEARCH=torch`` or the argument ``backend='torch'`` keeps to the latter.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import UserError
from vq.nn.precision import exact_matmul, no_autocast

Metric = Literal['l2', 'cosine']
Backend = Literal['auto', 'torch', 'triton']

VARIABLE = 'VQ_CODE_SEARCH'
CPU_BUDGET_BYTES = 12 * 2**20  # 4 MB below what is promised: the product packs its factors into memory of its own
DEVICE_BUDGET_BYTES = 128 * 2**20
MOST_CODES = 16384  # of a tile
SQUARES = 2**17  # at a time, in memory that is used again: fresh pages would cost more than the squares
GAP = 16  # floats between rows of scores
MOST_AGAIN = 512  # features of the second pass at once
SAMPLED_CODES = 1024  # enough for an offset that costs digits to show


def may_ask(device: torch.device) -> bool:
    """Whether the host may look at values: on a device it would wait for them."""
    return device.type == 'cpu'


class Codes:
    """The codebook as the product needs it, a slice at a time: fp32, and either of length one or without its offset."""

    def __init__(self, codebook: Tensor, cosine: bool) -> None:
        self.codebook = codebook  # (K, C)
        self.cosine = cosine
        self.centre = None if cosine else _centre(codebook)  # (C,)
        if self.centre is not None and may_ask(codebook.device) and not self.centre.any():
            self.centre = None

    def __len__(self) -> int:
        return len(self.codebook)

    def tile(self, start: int, width: int) -> Tensor:
        """(width, C), fewer at the end."""
        codes = self.codebook[start : start + width].float()
        return F.normalize(codes, dim=1) if self.cosine else self.shift(codes)

    def shift(self, rows: Tensor) -> Tensor:
        """Codes or features (n, C) in fp32, moved by the centre. The length of a feature does not change its best code."""
        rows = rows.float()
        return rows if self.centre is None else rows - self.centre

    def bias(self, budget_bytes: int) -> Tensor:
        """-|c|^2 / 2 (K,), zero where all lengths are one."""
        if self.cosine:
            return torch.zeros(len(self), device=self.codebook.device)
        channels = self.codebook.shape[1]
        most = budget_bytes // 16
        width = max(1, min(len(self), (min(SQUARES, most) if self.codebook.device.type == 'cpu' else most) // channels))
        squares = torch.empty(width, channels, device=self.codebook.device)
        bias = torch.empty(len(self), device=self.codebook.device)
        for start in range(0, len(self), width):
            tile = self.tile(start, width)
            torch.sum(torch.mul(tile, tile, out=squares[: len(tile)]), dim=1, out=bias[start : start + width])
        return bias.mul_(-0.5)


def _centre(codebook: Tensor) -> Tensor:
    """(C,) near the mean code, on a grid no finer than the spread of the codes, so that codes on a grid stay on it and
    equal distances stay equal. Zero unless the offset exceeds the spread. Any centre is right; a sample finds a good one.
    """
    sample = codebook[:: max(1, len(codebook) // SAMPLED_CODES)].float()
    mean = sample.mean(0)
    spread = (sample - mean).abs().amax(0).clamp_min(1e-20)
    exponent = torch.ceil(torch.log2(spread))
    # torch_xla computes exp2 on the host, which would cut every step in two
    step = torch.pow(2.0, exponent) if exponent.device.type == 'xla' else torch.exp2(exponent)
    return torch.round(mean / step) * step


class Tiles(NamedTuple):
    """How a search is cut: features at once, and features and codes of one tile of scores."""

    features: int
    rows: int
    width: int


def tiles_of_one_pass(features: int, codes: int, channels: int, budget_bytes: int) -> Tiles:
    """Half of the budget for scores, a quarter each for copies of their features and codes."""
    scores, copies = budget_bytes // 8, budget_bytes // 4 // (8 * channels)
    width = _width(codes, min(MOST_CODES, scores, copies))
    rows = max(1, min(features, scores // (width + GAP), copies))
    return Tiles(rows, rows, width)


def tiles_of_two_passes(features: int, codes: int, channels: int, budget_bytes: int, moved: bool = True) -> Tiles:
    """Half of the budget for scores, at most a fifth for copies of their codes, the rest for features; moved: copied.

    Few codes in a tile make the second pass short, many the first, and small tiles leave processors waiting for each other.
    """
    scores = budget_bytes // 8
    codes_of_a_tile = max(64, min(1024, round(4 * math.sqrt(codes))), scores // max(1, features) - GAP)
    width = _width(codes, min(codes_of_a_tile, scores, budget_bytes // 5 // (8 * channels)))
    left = budget_bytes // 2 - 8 * width * channels - 4 * codes - 4 * channels * MOST_AGAIN
    per_feature = 4 * math.ceil(codes / width) + 4 * channels * moved + 64  # best scores, copy, places and tokens
    at_once = _equal_parts(features, max(left, budget_bytes // 8) // per_feature)
    return Tiles(at_once, _equal_parts(at_once, scores // (width + GAP)), width)


def _width(codes: int, most: int) -> int:
    """Tiles of equal width, a multiple of 32, which suits the registers, unless not even 32 codes are allowed."""
    width = _equal_parts(codes, most)
    return max(1, min(32 * math.ceil(width / 32), most - most % 32 if most > 32 else most))


def _equal_parts(count: int, most: int) -> int:
    """The size of parts, nearly equal, of which none exceeds the most."""
    return max(1, math.ceil(count / max(1, math.ceil(count / max(1, most)))))


def _buffer(tiles: Tiles, device: torch.device) -> Tensor:
    """For scores (rows, width). Rows that start a power of two apart share lines of the cache, and the product takes twice as
    long: the gap keeps them off each other.
    """
    return torch.empty(tiles.rows, tiles.width + GAP, device=device)[:, : tiles.width]


def _full_tile(codes: Codes, bias: Tensor, start: int, width: int) -> tuple[Tensor, Tensor]:
    """Codes (width, C) and their bias (width,), the last tile filled up with copies of the last code.

    Columns beyond a multiple of what the registers hold are summed in another order: equal codes would differ in a last bit.
    """
    tile, offset = codes.tile(start, width), bias[start : start + width]
    missing = width - len(tile)
    if not missing:
        return tile, offset
    return torch.cat([tile, tile[-1:].expand(missing, -1)]), torch.cat([offset, offset[-1:].expand(missing)])


def _scores(rows: Tensor, tile: Tensor, offset: Tensor, buffer: Tensor) -> Tensor:
    """(n, width) in the buffer: rows (n, C) . tile (width, C) + offset (width,)."""
    return torch.addmm(offset, rows, tile.t(), out=buffer[: len(rows)])


def _one_pass(rows: Tensor, codes: Codes, bias: Tensor, buffer: Tensor, tokens: Tensor) -> None:
    """Writes the tokens (n,) of some rows (n, C), no more than the buffer has, and waits for no device."""
    width = buffer.shape[1]
    best = rows.new_full((len(rows),), -math.inf)
    tokens.zero_()
    for start in range(0, len(codes), width):
        value, index = _scores(rows, *_full_tile(codes, bias, start, width), buffer).max(dim=1)  # the first of equals
        better = (value > best) | (value.isnan() & ~best.isnan())  # strictly: an earlier tile keeps its tie
        torch.where(better, index.add_(start), tokens, out=tokens)
        best = torch.maximum(best, value)


def _two_passes(rows: Tensor, codes: Codes, bias: Tensor, buffer: Tensor, tokens: Tensor) -> None:
    """The same for any number of rows, on the CPU."""
    height, width = buffer.shape
    starts = range(0, len(codes), width)
    best = rows.new_empty(len(starts), len(rows))
    for maxima, start in zip(best, starts, strict=True):
        tile, offset = _full_tile(codes, bias, start, width)
        for part, found in zip(torch.split(rows, height), torch.split(maxima, height), strict=True):
            torch.amax(_scores(part, tile, offset, buffer), dim=1, out=found)
    winner = best.max(dim=0).indices  # the first of equals
    order = winner.argsort()
    counts = winner.bincount(minlength=len(starts)).tolist()
    for start, members in zip(starts, torch.split(order, counts), strict=True):
        if not len(members):
            continue
        tile, offset = _full_tile(codes, bias, start, width)
        for chosen in torch.split(members, min(height, MOST_AGAIN)):
            scores = _scores(rows[chosen], tile, offset, buffer)
            tokens[chosen] = scores.max(dim=1).indices.add_(start)  # the first of equals


def _search_torch(features: Tensor, codes: Codes, budget_bytes: int, twice: bool | None = None) -> Tensor:
    """Tokens (N,) of features (N, C), in two passes or in one, by default in what is faster.

    The second pass reads the codebook again, whatever the number of features, and costs each feature a tile of products. The
    limits were measured.
    """
    count, channels = features.shape
    moved = codes.centre is not None or features.dtype != torch.float32
    one = tiles_of_one_pass(count, len(codes), channels, budget_bytes)
    two = tiles_of_two_passes(count, len(codes), channels, budget_bytes, moved)
    if twice is None:
        many = two.features > max(100, 3 * channels) and len(codes) > max(256, 20 * channels, two.width)
        twice = many and may_ask(features.device)
    tiles, work = (two, _two_passes) if twice else (one, _one_pass)
    bias = codes.bias(budget_bytes)
    buffer = _buffer(tiles, features.device)
    tokens = torch.empty(count, dtype=torch.int64, device=features.device)
    for start in range(0, count, tiles.features):
        rows = codes.shift(features[start : start + tiles.features])
        work(rows, codes, bias, buffer, tokens[start : start + tiles.features])
    return tokens.clamp_(max=len(codes) - 1)  # a copy of the last code stands for it


def _search_xla(features: Tensor, codes: Codes, budget_bytes: int) -> Tensor:
    """The same for a back end that plans its own memory: XLA has no ``out=``, and crashes on writes into views."""
    codebook, features = codes.tile(0, len(codes)), codes.shift(features)
    bias = codebook.new_zeros(len(codebook)) if codes.cosine else codebook.square().sum(1).mul_(-0.5)
    rows = max(1, budget_bytes // (8 * len(codebook)))
    starts = range(0, len(features), rows)
    return torch.cat([torch.argmax(torch.addmm(bias, features[start : start + rows], codebook.t()), 1) for start in starts])


@functools.cache
def _kernel_runs(device: torch.device) -> bool:
    """Whether Triton is installed and knows the device."""
    return importlib.util.find_spec('triton') is not None and torch.cuda.get_device_capability(device) >= (7, 0)


def search(features: Tensor, codebook: Tensor, cosine: bool, budget_bytes: int, backend: str = 'auto') -> Tensor:
    """The search itself: tokens (N,) of features (N, C)."""
    backend = os.environ.get(VARIABLE, 'auto') if backend == 'auto' else backend
    if backend not in get_args(Backend):
        raise UserError(f'{VARIABLE}: no code search is called {backend!r}', f'one of {", ".join(get_args(Backend))}')
    device = features.device
    with torch.no_grad(), no_autocast(device), exact_matmul():
        if backend == 'triton' or (backend == 'auto' and device.type == 'cuda' and _kernel_runs(device)):
            from vq.quantizers.search_cuda import search_by_kernel

            return search_by_kernel(features, codebook, cosine)
        codes = Codes(codebook, cosine)
        if device.type == 'xla':
            return _search_xla(features, codes, budget_bytes)
        return _search_torch(features, codes, budget_bytes)


# An operator of its own: torch.compile takes it whole, instead of unrolling the tiles and refusing the precision switch.
_operator = torch.library.custom_op('vq::nearest_code', search, mutates_args=())


@_operator.register_fake
def _(features: Tensor, codebook: Tensor, cosine: bool, budget_bytes: int, backend: str = 'auto') -> Tensor:
    return features.new_empty(features.shape[0], dtype=torch.int64)


def nearest_code(
    features: Tensor,
    codebook: Tensor,
    metric: Metric = 'l2',
    budget_bytes: int | None = None,
    backend: Backend = 'auto',
) -> Tensor:
    """features (N, C), codebook (K, C) -> the nearest code of each feature, int64 (N,). The kernel needs no budget."""
    if budget_bytes is None:
        budget_bytes = CPU_BUDGET_BYTES if features.device.type == 'cpu' else DEVICE_BUDGET_BYTES
    # outside of torch.compile without the detour: the first call of an operator imports the compiler, seconds of it
    function = _operator if torch.compiler.is_compiling() else search
    tokens: Tensor = function(features.detach(), codebook.detach(), metric == 'cosine', budget_bytes, backend)
    return tokens


def nearest_feature(
    features: Tensor,
    codebook: Tensor,
    metric: Metric = 'l2',
    budget_bytes: int | None = None,
    backend: Backend = 'auto',
) -> Tensor:
    """features (N, C), codebook (K, C) -> the nearest feature of each code, int64 (K,): the same search, roles swapped."""
    return nearest_code(codebook, features, metric, budget_bytes, backend)
