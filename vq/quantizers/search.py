"""Exact nearest-code search in bounded memory.

    k(x) = argmin_k |x - c_k|^2 = argmax_k (x . c_k - |c_k|^2 / 2)

No root and no |x|^2: neither moves the argmax. One small tile of scores is computed at a time into one reused buffer,
so memory is the budget, never N x K. Ties go to the lowest index. Always fp32, with exact products, no gradients.
A common offset of the codes, which moves no argmax either, is taken off first: it would cost digits.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.nn.precision import exact_matmul, no_autocast

Metric = Literal['l2', 'cosine']

BUDGET_BYTES = 64 * 2**20
CPU_TILE_BYTES = 8 * 2**20  # about what stays in cache between the product and the maximum
CPU_TILE_CODES = 2048
DEVICE_TILE_CODES = 16384


def tile_shape(rows: int, codes: int, budget_bytes: int, device: torch.device) -> tuple[int, int]:
    """How many features and codes one tile of scores takes."""
    on_cpu = device.type == 'cpu'
    scores = max(1, min(budget_bytes, CPU_TILE_BYTES if on_cpu else budget_bytes) // 4)
    width = min(codes, CPU_TILE_CODES if on_cpu else DEVICE_TILE_CODES, scores)
    return max(1, min(rows, scores // width)), width


def search(features: Tensor, codebook: Tensor, cosine: bool, budget_bytes: int) -> Tensor:
    """The search itself: tokens (N,) of features (N, C)."""
    with torch.no_grad(), no_autocast(features.device), exact_matmul():
        codebook = codebook.float()  # (K, C)
        features = features.float()  # (N, C)
        if cosine:  # the length of a feature does not change which code is best
            codebook = F.normalize(codebook, dim=1)
            centre, bias = codebook.new_zeros(codebook.shape[1]), codebook.new_zeros(len(codebook))
        else:
            centre = _centre(codebook)  # (C,)
            codebook = codebook - centre
            bias = codebook.square().sum(1).mul_(-0.5)  # (K,)
        if features.device.type == 'xla':
            return _without_buffers(features - centre, codebook, bias, budget_bytes)
        rows, width = tile_shape(len(features), len(codebook), budget_bytes, features.device)
        buffer = features.new_empty(rows * width)
        tokens = torch.empty(len(features), dtype=torch.int64, device=features.device)
        for start in range(0, len(features), rows):
            tokens[start : start + rows] = _best_in_rows(
                features[start : start + rows] - centre, codebook, bias, buffer, width
            )
        return tokens


def _centre(codebook: Tensor) -> Tensor:
    """(C,) near the mean code, on a grid no finer than the spread of the codes, so that codes on a grid stay on it and
    equal distances stay equal. Zero unless the offset exceeds the spread.
    """
    mean = codebook.mean(0)
    spread = (codebook - mean).abs().amax(0).clamp_min(1e-20)
    exponent = torch.ceil(torch.log2(spread))
    # torch_xla computes exp2 on the host, which would cut every step in two
    step = torch.pow(2.0, exponent) if exponent.device.type == 'xla' else torch.exp2(exponent)
    return torch.round(mean / step) * step


def _best_in_rows(features: Tensor, codebook: Tensor, bias: Tensor, buffer: Tensor, width: int) -> Tensor:
    """Tokens (n,) of some features (n, C), one tile of codes after the other."""
    best: Tensor | None = None
    tokens = torch.zeros(len(features), dtype=torch.int64, device=features.device)
    for start in range(0, len(codebook), width):
        codes = codebook[start : start + width]
        scores = buffer[: len(features) * len(codes)].view(len(features), len(codes))
        torch.addmm(bias[start : start + width], features, codes.t(), out=scores)
        value, index = scores.max(dim=1)  # the first of equals
        if best is None:
            best, tokens = value, index
        else:
            better = value > best  # strictly: an earlier tile keeps its tie
            tokens = torch.where(better, index + start, tokens)
            best = torch.maximum(best, value)
    return tokens


def _without_buffers(features: Tensor, codebook: Tensor, bias: Tensor, budget_bytes: int) -> Tensor:
    """The same for a back end that plans its own memory: XLA has no ``out=``, and crashes on writes into views."""
    rows = max(1, budget_bytes // (4 * len(codebook)))
    starts = range(0, len(features), rows)
    return torch.cat([torch.argmax(torch.addmm(bias, features[start : start + rows], codebook.t()), 1) for start in starts])


# An operator of its own: torch.compile takes it whole, instead of unrolling the tiles and refusing the precision switch.
_operator = torch.library.custom_op('vq::nearest_code', search, mutates_args=())


@_operator.register_fake
def _(features: Tensor, codebook: Tensor, cosine: bool, budget_bytes: int) -> Tensor:
    return features.new_empty(features.shape[0], dtype=torch.int64)


def nearest_code(features: Tensor, codebook: Tensor, metric: Metric = 'l2', budget_bytes: int = BUDGET_BYTES) -> Tensor:
    """features (N, C), codebook (K, C) -> the nearest code of each feature, int64 (N,)."""
    # outside of torch.compile without the detour: the first call of an operator imports the compiler, seconds of it
    function = _operator if torch.compiler.is_compiling() else search
    tokens: Tensor = function(features.detach(), codebook.detach(), metric == 'cosine', budget_bytes)
    return tokens


def nearest_feature(features: Tensor, codebook: Tensor, metric: Metric = 'l2', budget_bytes: int = BUDGET_BYTES) -> Tensor:
    """features (N, C), codebook (K, C) -> the nearest feature of each code, int64 (K,): the same search, roles swapped."""
    return nearest_code(codebook, features, metric, budget_bytes)
