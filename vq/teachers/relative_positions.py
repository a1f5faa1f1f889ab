"""Biases of attention by relative position, which BEiT's authors interpolate for another number of patches.

A table for H x W patches has a row for each of (2 H - 1) (2 W - 1) offsets, and three for offsets from, to and at the class
token. Offsets matter less the larger they are: the authors place those of the table at distances that grow geometrically,
1, 1 + q, 1 + q + q^2, ... up to the largest distance wanted, and read a cubic spline through them at whole numbers.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vq.nn.precision import no_autocast

EXTRA = 3  # rows of a table for the class token


def resize_bias(table: Tensor, own: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """A table for ``own`` patches, (rows, columns) -> for ``wanted``, fp32. An axis of the same length stays."""
    with no_autocast(table.device):
        plane = table[:-EXTRA].float().view(2 * own[0] - 1, 2 * own[1] - 1, -1)  # (offsets, offsets, heads)
        down, across = (spline(2 * a - 1, 2 * b - 1, table.device) for a, b in zip(own, wanted, strict=True))
        resized = torch.einsum('ip,jq,pqn->ijn', down, across, plane)
        return torch.cat([resized.flatten(0, 1), table[-EXTRA:].float()])


@functools.lru_cache(32)
def position_index(height: int, width: int, device: torch.device) -> Tensor:
    """Rows of the table (1 + h * w, 1 + h * w) for each pair of tokens, the class token first."""
    with torch.inference_mode(False):
        rows, columns = (torch.arange(side) for side in (height, width))
        y, x = (axis.flatten() for axis in torch.meshgrid(rows, columns, indexing='ij'))  # (h * w,)
        across = 2 * width - 1
        index = (y[:, None] - y + height - 1) * across + x[:, None] - x + width - 1
        count = (2 * height - 1) * across
        index = F.pad(index, (1, 0, 1, 0), value=count + 1)  # from patches to the class token
        index[0] = count
        index[0, 0] = count + 2
        return index.to(device)


@functools.lru_cache(32)
def spline(source: int, target: int, device: torch.device) -> Tensor:
    """(target, source): the values of a cubic spline at whole distances, from its values at ``distances``. Both are odd."""
    reach = target // 2
    weights = np.eye(source)
    if source != target:
        weights = cubic_weights(distances(source, reach), np.arange(-reach, reach + 1, dtype=np.float64))
    with torch.inference_mode(False):
        return torch.from_numpy(weights).to(device, torch.float32)


def distances(source: int, reach: int) -> np.ndarray:
    """Where the authors place the ``source`` offsets of a table, so that the last is at ``reach``; q is above 1.01."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        low, high = (low, q) if (1 - q ** (source // 2)) / (1 - q) > reach else (q, high)
    growing = np.cumsum(q ** np.arange(source // 2))
    return np.concatenate([-growing[::-1], [0.0], growing])


def cubic_weights(places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(m, n): the cubic spline through n values at ``places``, 4 or more, at m ``wanted`` places; constant outside of them.

    The third derivative is continuous at the second place and at the last but one, as in SciPy ('not a knot').
    """
    count, steps = len(places), np.diff(places)
    left, right = np.zeros((count, count)), np.zeros((count, count))  # left @ second derivatives = right @ values
    for i in range(1, count - 1):
        before, after = steps[i - 1], steps[i]
        left[i, i - 1 : i + 2] = before / 6, (before + after) / 3, after / 6
        right[i, i - 1 : i + 2] = 1 / before, -1 / before - 1 / after, 1 / after
    for row, (first, second) in ((0, (steps[0], steps[1])), (-1, (steps[-2], steps[-1]))):
        start = 0 if row == 0 else count - 3
        left[row, start : start + 3] = 1 / first, -1 / first - 1 / second, 1 / second
    bends = np.linalg.solve(left, right)  # (n, n): second derivatives of the values
    wanted = np.clip(wanted, places[0], places[-1])
    piece = np.clip(np.searchsorted(places, wanted, side='right') - 1, 0, count - 2)
    step = steps[piece][:, None]
    near = (places[piece + 1] - wanted)[:, None] / step
    far, eye = 1 - near, np.eye(count)
    curved = (near**3 - near) * bends[piece] + (far**3 - far) * bends[piece + 1]
    weights: np.ndarray = near * eye[piece] + far * eye[piece + 1] + curved * step**2 / 6
    return weights
