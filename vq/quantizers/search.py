"""Exact nearest-code search in bounded memory.

    k(x) = argmin_k |x - c_k|^2 = argmax_k (x . c_k - |c_k|^2 / 2)

The root and |x|^2 are left out: neither moves the argmax. Scores are computed one small tile at a time, in one reused buffer,
so memory is bounded by the budget, never N x K. A tile has at least 2 features and 32 codes, whatever the budget. Ties go to
the lowest index. The search is in fp32 with exact products and has no gradient. A common offset of the codes does not move the
argmax, but costs digits, so it is subtracted first. Codes are converted, centred or normalised tile by tile, never the whole
codebook.

A code that is not finite, or larger than 2^90, is never chosen unless all codes are such; then the token is 0. A feature with
a nan gets the first other code, a feature with an infinity any of them. Other magnitudes make no difference, from 1e-30 on:
search_codes.py.

On the CPU many features and codes take two passes. A maximum with its index takes over ten times as long as the maximum alone,
which runs in vector registers, and several times as long as the matrix product for few channels. So the first pass keeps the
best score of each tile of codes. The second pass recomputes the winning tile of each feature to find the code in the tile.
benchmarks/README.md has the measurements.

On CUDA one Triton kernel does the search (search_cuda.py). Without Triton, and on other devices, it is tiles with
``torch.max``. The environment variable ``VQ_CODE_SEARCH=torch`` or the argument ``backend='torch'`` selects tiles on CUDA too.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.nn.lazy_tensors import is_lazy, largest_score
from vq.nn.precision import exact_matmul, no_autocast
from vq.quantizers import search_codes
from vq.quantizers.search_codes import Codes

Metric = Literal['l2', 'cosine']
Backend = Literal['auto', 'torch', 'triton']

VARIABLE = 'VQ_CODE_SEARCH'
CPU_BUDGET_BYTES = 12 * 2**20  # 4 MB below the promised 16: the matrix product packs its factors into buffers of its own
DEVICE_BUDGET_BYTES = 128 * 2**20
MOST_CODES = 16384  # per tile
GAP = 16  # floats between rows of scores
MOST_AGAIN = 512  # features at once in the second pass
LEAST_CODES, LEAST_ROWS = (
    32,
    2,
)  # per product of matrices: smaller ones are summed in an order that depends on the place of a code


class Tiles(NamedTuple):
    """Sizes of a search: features per call, and features and codes per tile of scores."""

    features: int
    rows: int
    width: int


def tiles_of_one_pass(features: int, codes: int, channels: int, budget_bytes: int, moved: bool = True) -> Tiles:
    """Half of the budget for scores, a quarter each for copies of features and codes. ``moved``: codes are copied twice, to
    move and to pad them, otherwise once. Few features take wide tiles: every tile costs several small operations.
    """
    scores, copies = budget_bytes // 8, budget_bytes // 4 // ((8 if moved else 4) * channels)
    width = _width(codes, min(MOST_CODES, scores, copies))
    rows = max(1, min(features, scores // (width + GAP), copies))
    return Tiles(rows, rows, width)


def tiles_of_two_passes(features: int, codes: int, channels: int, budget_bytes: int, moved: bool = True) -> Tiles:
    """Half of the budget for scores, at most a fifth for copies of codes, the rest for features. ``moved``: they are copied.

    Narrow tiles make the second pass short, wide tiles the first. Small tiles leave cores idle.
    """
    scores = budget_bytes // 8
    codes_of_a_tile = max(64, min(1024, round(4 * math.sqrt(codes))), scores // max(1, features) - GAP)
    width = _width(codes, min(codes_of_a_tile, scores, budget_bytes // 5 // (8 * channels)))
    left = budget_bytes // 2 - 8 * width * channels - 4 * codes - 4 * channels * MOST_AGAIN
    per_feature = 4 * math.ceil(codes / width) + 4 * channels * moved + 64  # best scores, copy, places and tokens
    at_once = _equal_parts(features, max(left, budget_bytes // 8) // per_feature)
    return Tiles(at_once, _equal_parts(at_once, scores // (width + GAP)), width)


def _width(codes: int, most: int) -> int:
    """Equal widths, multiples of LEAST_CODES for the vector registers, also where ``most`` is smaller."""
    width = _equal_parts(codes, most)
    return max(LEAST_CODES, min(LEAST_CODES * math.ceil(width / LEAST_CODES), most - most % LEAST_CODES))


def _equal_parts(count: int, most: int) -> int:
    """The size of nearly equal parts of ``count``, at most ``most``."""
    return max(1, math.ceil(count / max(1, math.ceil(count / max(1, most)))))


def _buffer(tiles: Tiles, device: torch.device) -> Tensor:
    """Memory for scores (rows, width). Rows a power of two apart would map to the same cache sets and double the time of the
    matrix product, so rows have a gap between them.
    """
    return torch.empty(max(LEAST_ROWS, tiles.rows), tiles.width + GAP, device=device)[:, : tiles.width]


def _full_tile(codes: Codes, start: int, width: int) -> tuple[Tensor, Tensor]:
    """Codes (width, C) and bias (width,). The last tile is padded with copies of the last code.

    Columns beyond a multiple of the register width are summed in another order, so equal codes would differ in the last bit.
    """
    tile, offset = codes.tile(start, width), codes.bias[start : start + width]
    missing = width - len(tile)
    if not missing:
        return tile, offset
    return torch.cat([tile, tile[-1:].expand(missing, -1)]), torch.cat([offset, offset[-1:].expand(missing)])


def _scores(rows: Tensor, tile: Tensor, offset: Tensor, buffer: Tensor) -> Tensor:
    """(n, width) in the buffer: rows (n, C) . tile (width, C) + offset (width,)."""
    if len(rows) < LEAST_ROWS:
        return torch.addmm(offset, rows.expand(LEAST_ROWS, -1), tile.t(), out=buffer[:LEAST_ROWS])[: len(rows)]
    return torch.addmm(offset, rows, tile.t(), out=buffer[: len(rows)])


def _one_pass(rows: Tensor, codes: Codes, buffer: Tensor, tokens: Tensor) -> None:
    """Write the tokens (n,) of rows (n, C), n at most the rows of the buffer. No host sync."""
    width = buffer.shape[1]
    best = rows.new_full((len(rows),), -math.inf)
    tokens.zero_()
    for start in range(0, len(codes), width):
        value, index = _scores(rows, *_full_tile(codes, start, width), buffer).max(dim=1)  # ties: the lowest index
        better = (value > best) | (value.isnan() & ~best.isnan())  # strictly greater: ties go to the earlier tile
        torch.where(better, index.add_(start), tokens, out=tokens)
        best = torch.maximum(best, value)


def _two_passes(rows: Tensor, codes: Codes, buffer: Tensor, tokens: Tensor) -> None:
    """Write the tokens (n,) of any number of rows (n, C). CPU only: the second pass reads how many rows a tile won."""
    height, width = buffer.shape
    starts = range(0, len(codes), width)
    best = rows.new_empty(len(starts), len(rows))
    for maxima, start in zip(best, starts, strict=True):
        tile, offset = _full_tile(codes, start, width)
        for part, found in zip(torch.split(rows, height), torch.split(maxima, height), strict=True):
            torch.amax(_scores(part, tile, offset, buffer), dim=1, out=found)
    winner = best.max(dim=0).indices  # ties: the lowest index
    order = winner.argsort()
    counts = winner.bincount(minlength=len(starts)).tolist()
    for start, members in zip(starts, torch.split(order, counts), strict=True):
        if not len(members):
            continue
        tile, offset = _full_tile(codes, start, width)
        for chosen in torch.split(members, min(height, MOST_AGAIN)):
            scores = _scores(rows[chosen], tile, offset, buffer)
            tokens[chosen] = scores.max(dim=1).indices.add_(start)  # ties: the lowest index


def _search_torch(features: Tensor, codes: Codes, budget_bytes: int, twice: bool | None = None) -> Tensor:
    """Tokens (N,) of features (N, C). ``twice``: in two passes; None: where two passes are faster.

    The second pass reads the codebook again for any number of features, and costs one tile of products per feature. The
    thresholds were measured.
    """
    count, channels = features.shape
    moved = codes.centre is not None or codes.exponent is not None or features.dtype != torch.float32
    one = tiles_of_one_pass(count, len(codes), channels, budget_bytes, moved or codes.moved)
    two = tiles_of_two_passes(count, len(codes), channels, budget_bytes, moved)
    if twice is None:
        many = two.features > max(100, 3 * channels) and len(codes) > max(256, 20 * channels, two.width)
        twice = many and search_codes.reads_are_free(features.device)
    tiles, work = (two, _two_passes) if twice else (one, _one_pass)
    buffer = _buffer(tiles, features.device)
    tokens = torch.empty(count, dtype=torch.int64, device=features.device)
    for start in range(0, count, tiles.features):
        rows = codes.rows(features[start : start + tiles.features])
        work(rows, codes, buffer, tokens[start : start + tiles.features])
    return codes.chosen(tokens.clamp_(max=len(codes) - 1))  # padding: copies of the last code


def _search_lazy(features: Tensor, codes: Codes, budget_bytes: int) -> Tensor:
    """Tokens (N,) of lazy features (N, C): the whole codebook is converted at once."""
    return codes.chosen(largest_score(codes.rows(features), codes.tile(0, len(codes)), codes.bias, budget_bytes))


@functools.cache
def _kernel_runs(device: torch.device) -> bool:
    """Whether Triton is installed and supports the device."""
    return importlib.util.find_spec('triton') is not None and torch.cuda.get_device_capability(device) >= (7, 0)


def search(features: Tensor, codebook: Tensor, cosine: bool, budget_bytes: int, backend: str = 'auto') -> Tensor:
    """Tokens (N,) of features (N, C), by the kernel or by tiles."""
    backend = os.environ.get(VARIABLE, 'auto') if backend == 'auto' else backend
    if backend not in get_args(Backend):
        raise UserError(f'{VARIABLE}: no code search is called {backend!r}', f'one of {", ".join(get_args(Backend))}')
    device = features.device
    with torch.no_grad(), no_autocast(device), exact_matmul():
        if backend == 'triton' or (backend == 'auto' and device.type == 'cuda' and _kernel_runs(device)):
            from vq.quantizers.search_cuda import search_by_kernel

            return search_by_kernel(features, codebook, cosine)
        codes = Codes(codebook, cosine, budget_bytes)
        if is_lazy(features):
            return _search_lazy(features, codes, budget_bytes)
        return _search_torch(features, codes, budget_bytes)


# A custom operator: torch.compile keeps it whole. Otherwise it would unroll the tiles, and break at the precision switch.
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
    """features (N, C), codebook (K, C) -> the nearest code of each feature, int64 (N,). The kernel ignores the budget."""
    if budget_bytes is None:
        budget_bytes = CPU_BUDGET_BYTES if features.device.type == 'cpu' else DEVICE_BUDGET_BYTES
    # called directly outside of torch.compile: the first call of a custom operator imports the compiler, which takes seconds
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
    """features (N, C), codebook (K, C) -> the nearest feature of each code, int64 (K,): the same search with swapped roles."""
    return nearest_code(codebook, features, metric, budget_bytes, backend)
