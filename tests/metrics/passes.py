"""Passes over samples, for tests of metrics, with different splits into batches."""

from __future__ import annotations

import torch

from vq.core.random import key_of
from vq.core.records import Batch, Outputs

CUTS = [
    [[row] for row in range(11)],
    [[7, 3, 10], [0, 1, 2, 4, 5, 6, 8, 9]],
    [list(range(11)), [4, 4, 2], [10]],
]


def batch_of(rows, image=None, category=None):
    """The samples ``rows`` of a pass, by number."""
    return Batch(
        torch.empty(len(rows), 3, 0, 0) if image is None else image[rows],
        [f'image {row}' for row in rows],
        torch.tensor([key_of(f'image {row}') for row in rows]),
        category=None if category is None else category[rows],
    )


def measure(metric, cuts, image=None, category=None, **outputs):
    """The result of a pass; ``cuts`` are the rows of each batch."""
    for rows in cuts:
        found = Outputs()
        for name, value in outputs.items():
            setattr(found, name, value[rows])
        metric.update(batch_of(rows, image, category), found)
    return metric.compute()
