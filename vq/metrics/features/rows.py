"""Checks of rows of features before they are compared."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import UserError

ROWS = 4096  # rows per chunk


def check_finite(rows: Tensor, what: str = 'features') -> None:
    """Raise if any of rows (n, D) is not finite, with the number of such rows."""
    broken = 0
    for part in torch.split(rows, ROWS):
        broken += int((~part.double().sum(1).isfinite()).sum())
    if broken:
        raise UserError(
            f'{broken:,} of {len(rows):,} rows of {what} hold NaN or infinite numbers',
            'Check the images, and run the feature network in fp32.',
        )


def check_pair(a: Tensor, b: Tensor) -> None:
    """Rows (n, D) and (m, D) of one network, without NaN."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise UserError(
            f'features {tuple(a.shape)} and {tuple(b.shape)} cannot be compared', 'Give both from the same network.'
        )
    check_finite(a)
    check_finite(b)
