"""The Inception Score: how confident a classifier is on single images, and how diverse its predictions are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.metrics.features.rows import check_finite

ROWS = 4096  # rows per chunk of probabilities


class InceptionScore(NamedTuple):
    """Mean and (population) standard deviation over splits."""

    mean: float
    std: float
    splits: int


def inception_score(logits: Tensor, splits: int = 10, keys: Tensor | None = None) -> InceptionScore:
    """exp of the mean over images of KL(p(y|x) || p(y)), for each split of the images (Salimans et al. 2016).

    p(y|x) is the softmax of logits (n, classes); p(y) is its mean over the split. Split i has the rows from i n // splits
    to (i + 1) n // splits, without a shuffle. If ``keys`` (n,) are given, rows are sorted by them first, so that the splits
    do not depend on the order of samples. Keys are hashes of ids, so samples generated class by class are mixed. This
    matters, because a split of few classes has a low score.
    """
    count = len(logits)
    if splits < 1 or count < splits:
        raise UserError(
            f'an inception score of {splits} splits needs at least as many images, and there are {count}',
            'Give more images, or fewer splits.',
        )
    check_finite(logits, 'logits')
    if keys is not None:
        logits = logits[torch.argsort(keys, stable=True).to(logits.device)]
    scores = torch.tensor(
        [_score(logits[index * count // splits : (index + 1) * count // splits]) for index in range(splits)],
        dtype=torch.float64,
    )
    return InceptionScore(scores.mean().item(), scores.std(correction=0).item(), splits)


def _score(logits: Tensor) -> float:
    """mean of KL(p(y|x) || p(y)) = H(mean of p) - mean of H(p)."""
    total = torch.zeros(logits.shape[1], dtype=torch.float64, device=logits.device)
    negative_entropy = torch.zeros((), dtype=torch.float64, device=logits.device)
    for part in torch.split(logits, ROWS):
        logarithm = part.double().log_softmax(1)
        probability = logarithm.exp()
        total += probability.sum(0)
        negative_entropy += (probability * logarithm).nan_to_num(nan=0.0).sum()  # 0 log 0
    marginal = total / len(logits)
    divergence = negative_entropy / len(logits) - torch.xlogy(marginal, marginal).sum()
    return divergence.exp().item()
