"""Nearest codes by one Triton kernel that never writes a score to memory.

    l2:      k(x) = argmax_k ((x - o) . (c_k - o) - |c_k - o|^2 / 2)
    cosine:  k(x) = argmax_k (x . c_k / |c_k|)

A program takes a block of features and loops over the codes block by block. Each element of its BLOCK_N x BLOCK_K tile keeps
its best score so far and the code block of that score. The elements of a feature are compared only after the loop. A later
block replaces a score only if strictly better, and equal elements go to the lower index, so ties go to the lowest index. Codes
that are not finite are skipped; of the others a NaN score wins, as in ``torch.max``. Products are true fp32 (``ieee``): tensor
cores would round the factors.

Every feature is multiplied by a power of two, so that scores of very large or very small values neither overflow nor vanish
(search_codes.py). For L2 it includes the power for the codes, which are read as they are: s^2 (x . c) = (s^2 x) . c.

With few features most of a GPU would be idle. The codes are then split into parts, each with its own programs, and the best
score over the parts is taken. Memory beyond inputs and tokens: three numbers per code, one per feature, and a score and an
index per feature and part.
"""

from __future__ import annotations

import functools
from contextlib import nullcontext
from typing import Any, no_type_check

import torch
from torch import Tensor

from vq.quantizers.search import DEVICE_BUDGET_BYTES
from vq.quantizers.search_codes import Codes

BLOCK_N, BLOCK_K = 64, 64
WARPS = 8  # with these block sizes no registers spill, compiled for A100 and H100
PROGRAMS_PER_PROCESSOR = 2  # a multiprocessor runs one program at a time; two per multiprocessor balance the load
LEAST_BLOCKS_PER_PART = 4

tl: Any = None  # triton.language, imported by ``kernel``: a machine without a GPU needs no Triton


@no_type_check  # Triton parses the annotations and accepts only its own
def assign(
    features,
    codebook,
    centre,
    factors,
    powers,
    scores,
    tokens,
    feature_count,
    code_count,
    channels,
    codes_per_part,
    feature_stride,
    code_stride,
    COSINE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The kernel: writes scores and tokens (parts, N) of features (N, C) against a codebook (K, C) with centre o (C,).
    ``factors`` (K,) holds the factor 1 / |c| of each code if COSINE, else the summand -|c - o|^2 / 2, and NaN for codes that
    are never chosen. ``powers`` (N,) multiply the features.
    """
    part = tl.program_id(1)
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.arange(0, BLOCK_K)
    dims = tl.arange(0, BLOCK_C)
    first = part * codes_per_part
    last = tl.minimum(first + codes_per_part, code_count)
    power = tl.load(powers + rows, mask=rows < feature_count, other=0.0)
    row_starts = features + rows.to(tl.int64)[:, None] * feature_stride
    best = tl.full((BLOCK_N, BLOCK_K), float('-inf'), tl.float32)
    block_of_best = tl.full((BLOCK_N, BLOCK_K), 0, tl.int32)
    for start in range(first, last, BLOCK_K):
        codes = start + columns
        factor = tl.load(factors + codes, mask=codes < last, other=float('nan'))
        usable = factor == factor
        code_starts = codebook + codes.to(tl.int64)[:, None] * code_stride
        score = tl.full((BLOCK_N, BLOCK_K), 0.0, tl.float32)
        for channel in range(0, channels, BLOCK_C):
            here = channel + dims
            there = here[None, :] < channels
            x = tl.load(row_starts + here[None, :], mask=there & (rows[:, None] < feature_count), other=0.0).to(tl.float32)
            c = tl.load(code_starts + here[None, :], mask=there & usable[:, None], other=0.0).to(tl.float32)
            if not COSINE:
                middle = tl.load(centre + here, mask=here < channels, other=0.0)
                x -= middle[None, :]
                c -= middle[None, :]
            x *= power[:, None]
            score = tl.dot(x, tl.trans(c), score, input_precision='ieee')
        score = score * factor[None, :] if COSINE else score + factor[None, :]
        score = tl.where(score == score, score, float('inf'))
        score = tl.where(usable[None, :], score, float('-inf'))
        better = score > best
        best = tl.where(better, score, best)
        block_of_best = tl.where(better, start - first, block_of_best)
    peak = tl.max(best, 1)
    token = tl.where(best == peak[:, None], first + block_of_best + columns[None, :], code_count)
    place = part * feature_count + rows
    tl.store(scores + place, peak, mask=rows < feature_count)
    tl.store(tokens + place, tl.min(token, 1), mask=rows < feature_count)


@functools.cache
def kernel() -> Any:
    """The kernel for Triton. Triton compiles it at the first launch with each kind of inputs."""
    global tl
    import triton
    import triton.language

    tl = triton.language
    return triton.jit(assign)


def parts_of(features: int, codes: int, programs: int) -> tuple[int, int]:
    """(number of parts, codes per part): as few parts as give about ``programs`` programs."""
    blocks = -(-codes // BLOCK_K)
    wanted = -(-programs // max(1, -(-features // BLOCK_N)))
    blocks_per_part = max(LEAST_BLOCKS_PER_PART, -(-blocks // wanted))
    return -(-blocks // blocks_per_part), blocks_per_part * BLOCK_K


def search_by_kernel(features: Tensor, codebook: Tensor, cosine: bool, programs: int | None = None) -> Tensor:
    """Tokens (N,) of features (N, C). ``programs``: how many to aim for, by default PROGRAMS_PER_PROCESSOR on each
    multiprocessor of the device.
    """
    features, codebook = (_readable(value) for value in (features, codebook))
    codes = Codes(codebook, cosine, DEVICE_BUDGET_BYTES)
    factors = codes.bias if codes.lengths is None else codes.lengths.reciprocal()
    if codes.usable is not None:
        factors = torch.where(codes.usable, factors, torch.nan)
    powers = codes.row_factors(features)
    if codes.exponent is not None:
        powers = powers * torch.exp2(codes.exponent)
    centre = codebook.new_zeros(codebook.shape[1], dtype=torch.float32) if codes.centre is None else codes.centre
    if programs is None:
        programs = PROGRAMS_PER_PROCESSOR * torch.cuda.get_device_properties(features.device).multi_processor_count
    parts, codes_per_part = parts_of(len(features), len(codebook), programs)
    scores = torch.empty(parts, len(features), device=features.device)
    tokens = torch.empty(parts, len(features), dtype=torch.int32, device=features.device)
    if len(features):
        with torch.cuda.device(features.device) if features.is_cuda else nullcontext():
            kernel()[(-(-len(features) // BLOCK_N), parts)](
                features,
                codebook,
                centre,
                factors,
                powers,
                scores,
                tokens,
                len(features),
                len(codebook),
                codebook.shape[1],
                codes_per_part,
                features.stride(0),
                codebook.stride(0),
                COSINE=cosine,
                BLOCK_N=BLOCK_N,
                BLOCK_K=BLOCK_K,
                BLOCK_C=16 if codebook.shape[1] <= 16 else 32,
                num_warps=WARPS,
            )
    best = tokens[0] if parts == 1 else tokens.gather(0, scores.max(dim=0).indices[None])[0]  # ties: the first part
    return best.long()


def _readable(values: Tensor) -> Tensor:
    """The values as the kernel reads them: floats of 16 or 32 bits, contiguous within a row."""
    if values.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        values = values.float()
    return values if values.stride(1) == 1 else values.contiguous()
