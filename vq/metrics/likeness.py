"""Distances of generated images from each other, and from the training images of their generator."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 64  # rows to compare with all others at a time


def within_class_distance(images: Tensor, category: Tensor) -> float:
    """The mean, over classes, of the mean Euclidean distance between two different images of a class.

    images (N, C, H, W) uint8, scaled to 0 to 1; category (N,). Classes with a single image are left out. NaN if no class
    has two images.
    """
    rows = images.flatten(1).double() / 255
    found = [torch.pdist(rows[category == number]) for number in torch.unique(category)]
    means = [distances.mean() for distances in found if len(distances)]
    return float(torch.stack(means).mean()) if means else float('nan')


def nearest_by_tokens(tokens: Tensor, others: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
    """For each of ``tokens`` (N, *tokens.shape) the ``count`` nearest of ``others`` (M, *tokens.shape), by equal tokens.

    Returns the share of positions with equal tokens (N, count), in [0, 1], highest first, and the rows of ``others``
    (N, count). Equal shares are sorted by row.
    """
    flat, known = tokens.flatten(1), others.flatten(1)
    shares, rows = [], []
    for part in torch.split(flat, CHUNK):
        same = (part[:, None] == known[None]).sum(-1)  # (chunk, M), integers, so that ties are exact
        order = same.argsort(dim=1, descending=True, stable=True)[:, :count]
        shares.append(same.gather(1, order).double() / flat.shape[1])
        rows.append(order)
    if not shares:
        return torch.zeros(0, count, dtype=torch.float64), torch.zeros(0, count, dtype=torch.int64)
    return torch.cat(shares), torch.cat(rows)
