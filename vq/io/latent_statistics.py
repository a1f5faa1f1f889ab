"""Mean and deviation of the latents in a set of shards, exact for any number of shards and ranks.

    n = sum n_k,  mean = sum n_k mean_k / n,  deviation^2 = sum (S_k + n_k (mean_k - mean)^2) / n,  S_k = sum (z - mean_k)^2

per channel, over the images and cells of shard k. Each shard has its own n_k, mean_k and S_k in its metadata, in fp64; the
sums over shards are correctly rounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

KEY = 'vq.latents'  # of the metadata of a shard


def of(z: npt.NDArray[np.float64]) -> dict[str, Any]:
    """The sums of one shard, of latents (n, C, *cells)."""
    rows = np.moveaxis(z, 1, 0).reshape(z.shape[1], -1)  # (C, n * cells)
    mean = rows.mean(1)
    return {
        'count': rows.shape[1],
        'mean': mean.tolist(),
        'squares': np.square(rows - mean[:, None]).sum(1).tolist(),
    }


def merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``count`` (cells of all images), ``mean`` and ``deviation`` per channel."""
    count = sum(part['count'] for part in parts)
    mean, deviation = [], []
    for channel in range(len(parts[0]['mean'])):
        average = math.fsum(part['count'] * part['mean'][channel] for part in parts) / count
        squares = math.fsum(
            part['squares'][channel] + part['count'] * (part['mean'][channel] - average) ** 2 for part in parts
        )
        mean.append(average)
        deviation.append(math.sqrt(squares / count))
    return {'per': 'channel', 'count': count, 'mean': mean, 'deviation': deviation}
