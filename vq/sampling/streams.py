"""Random numbers of each sample: the same in any batch, on any rank, before or after a restart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vq.core.random import derive_seed


def uniforms(seed: int, ids: Sequence[int], *shape: int, purpose: str = 'tokens') -> Tensor:
    """(B, *shape) fp32 in [0, 1), on the CPU. Row b is drawn from a stream of ``seed``, ``purpose`` and ids[b] alone."""
    numbers = torch.empty(len(ids), *shape)
    for row, sample in zip(numbers, ids, strict=True):
        row.uniform_(generator=torch.Generator().manual_seed(derive_seed('sample', seed, purpose, sample)))
    return numbers


def normals(seed: int, ids: Sequence[int], *shape: int, purpose: str = 'noise') -> Tensor:
    """(B, *shape) fp32 standard normal numbers, on the CPU. Row b is drawn from a stream of its own, as in ``uniforms``."""
    numbers = torch.empty(len(ids), *shape)
    for row, sample in zip(numbers, ids, strict=True):
        row.normal_(generator=torch.Generator().manual_seed(derive_seed('sample', seed, purpose, sample)))
    return numbers
