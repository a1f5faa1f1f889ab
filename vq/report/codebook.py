"""Pictures of codes: the mean of the patches that have a code, and a map of one code decoded. And a baseline that fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vq.core.environment import dry_run
from vq.report import baseline
from vq.report.baseline import PatchKMeans
from vq.report.facts import Pixels
from vq.report.images import as_pixels

MOST = 1024  # codes to show, the most used ones
PER_CODE = 2  # patches that k-means needs for each code, at least
WORK = 1.5e12  # operations of a fit that a core does in about a minute
LEAST, ITERATIONS = 20, 300  # steps of k-means


def mean_patches(images: Pixels, tokens: NDArray[np.int64], codes: int) -> Pixels:
    """The mean of the patches assigned to each code (K, p, p, 3); zero for unused codes. tokens (N, h, w)."""
    patch = images.shape[1] // tokens.shape[1]
    rows, flat = baseline.cut(images, patch), tokens.reshape(-1)
    sums = np.zeros((codes, rows.shape[1]), np.float64)
    order = np.argsort(flat, kind='stable')
    edges = np.searchsorted(flat[order], np.arange(codes + 1))
    for code in np.unique(flat):  # sums of integers are exact in any order
        sums[code] = rows[order[edges[code] : edges[code + 1]]].sum(0, dtype=np.float64)
    means = sums / np.maximum(np.bincount(flat, minlength=codes), 1)[:, None]
    return np.rint(means).astype(np.uint8).reshape(codes, patch, patch, 3)


def decode_alone(detokenize: Callable[[Tensor], Tensor], codes: Sequence[int], shape: tuple[int, int], patch: int) -> Pixels:
    """For each code the cell in the middle of a map (h, w) of this code alone, decoded: (K, p, p, 3)."""
    top, left = shape[0] // 2 * patch, shape[1] // 2 * patch
    parts = []
    for part in torch.split(torch.tensor(list(codes)), 32):
        made = as_pixels(detokenize(part[:, None, None].expand(-1, *shape)))
        parts.append(made[:, top : top + patch, left : left + patch])
    return np.concatenate(parts)


def most_used(counts: Sequence[int], most: int = MOST) -> list[int]:
    """The codes to show: () if all are, otherwise the most used ones."""
    if len(counts) <= most:
        return []
    return [int(code) for code in np.argsort(-np.asarray(counts), kind='stable')[:most]]


def patch_for(size: int, tokens: int) -> int | None:
    """The side of square patches that cut an image of ``size`` into ``tokens`` of them; None if there is none."""
    side = round(tokens**0.5)
    return size // side if side and side * side == tokens and size % side == 0 else None


def fit_baseline(images: Pixels, codes: int, tokens: int, seed: int) -> tuple[PatchKMeans | None, str]:
    """k-means with as many codes and tokens as a tokenizer, on training images; or the reason why there is none.

    Large codebooks are fitted with fewer steps, and on fewer patches.
    """
    patch = patch_for(images.shape[1], tokens)
    if images.shape[1] != images.shape[2] or patch is None:
        return None, f'{tokens} tokens do not cut images of {images.shape[2]} x {images.shape[1]} into squares'
    per_patch = 2.0 * codes * patch * patch * 3  # operations for a patch in a step
    there = len(images) * tokens
    used = int(min(there, WORK / (LEAST * per_patch)))
    if used < PER_CODE * codes:
        few = f'{there:,} patches of training images are few for {codes:,} codes'
        return None, few if there < PER_CODE * codes else f'{codes:,} codes of patches of {patch} x {patch} would take hours'
    images = images[: max(1, -(-used // tokens))]
    if dry_run():
        return baseline.fit(images[: max(96, PER_CODE * codes // tokens)], codes, patch, seed, iterations=2), ''
    steps = int(min(ITERATIONS, max(LEAST, WORK / (per_patch * len(images) * tokens))))
    return baseline.fit(images, codes, patch, seed, iterations=steps), ''
