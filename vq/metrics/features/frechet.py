"""The Frechet distance between Gaussians fitted to two sets of features: FID, sFID and FD of any network."""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.metrics.features.statistics import Moments

logger = logging.getLogger('vq')


class FrechetDistance(NamedTuple):
    """The distance, the part of it that is due to the means, and warnings for the reader of the figure."""

    value: float
    of_means: float
    notes: tuple[str, ...] = ()


def frechet_distance(a: Moments, b: Moments) -> FrechetDistance:
    """|m_a - m_b|^2 + tr(A + B - 2 (AB)^(1/2)), in float64.

    (AB)^(1/2) has the trace of (A^(1/2) B A^(1/2))^(1/2), which is symmetric. With A = V w V^T and F = V w^(1/2), that
    trace is the sum of the square roots of the eigenvalues of F^T B F. So no matrix square root is computed, and no
    eigenvalues of an unsymmetric matrix. Eigenvalues that are negative by rounding are set to zero.

    The covariance of n samples has at most n - 1 eigenvalues above zero. If n - 1 < D, the smaller set is taken as A and
    only n - 1 eigenvalues are kept: the square roots of the others would be rounding errors that add up. The columns of F
    are sorted from large to small eigenvalues. With this order LAPACK finds small eigenvalues of F^T B F to their own
    precision; with any other order only to the precision of the largest. The spectra of features span many decades.
    """
    _check(a, b)
    if _rank(b) < _rank(a):
        return _distance(b, a, _notes(a, b))
    return _distance(a, b, _notes(a, b))


def _distance(a: Moments, b: Moments, notes: tuple[str, ...]) -> FrechetDistance:
    values, vectors = torch.linalg.eigh(a.covariance)  # ascending
    rank = _rank(a)
    factor = (vectors[:, -rank:] * values[-rank:].clamp_min(0).sqrt()).flip(1)  # (D, rank)
    product = factor.T @ b.covariance @ factor
    roots = torch.linalg.eigvalsh(product, UPLO='L').clamp_min(0).sqrt()
    of_means = (a.mean - b.mean).square().sum()
    value = of_means + a.covariance.trace() + b.covariance.trace() - 2 * roots.sum()
    return FrechetDistance(max(value.item(), 0.0), of_means.item(), notes)


def _rank(moments: Moments) -> int:
    """The largest possible number of eigenvalues above zero of the covariance."""
    dimension = len(moments.mean)
    return dimension if moments.count is None else min(dimension, max(moments.count - 1, 1))


def _check(a: Moments, b: Moments) -> None:
    for moments in (a, b):
        if moments.covariance.shape != (len(moments.mean), len(moments.mean)):
            raise UserError(
                f'a mean of {len(moments.mean)} numbers does not fit a covariance {tuple(moments.covariance.shape)}',
                'Make the statistics again.',
            )
        if not (_finite(moments.mean) and _finite(moments.covariance)):
            raise UserError('the statistics hold NaN or infinite numbers', 'Make them again, with the network in fp32.')
    if len(a.mean) != len(b.mean):
        raise UserError(
            f'features of {len(a.mean)} and of {len(b.mean)} dimensions have no distance',
            'Make both statistics with the same network.',
        )


def _finite(values: Tensor) -> bool:
    return bool(values.isfinite().all())


def _notes(a: Moments, b: Moments) -> tuple[str, ...]:
    """Warnings, also logged, about sets that are too small."""
    dimension = len(a.mean)
    known = [moments for moments in (a, b) if moments.count is not None]
    small = [moments.count for moments in known if moments.count is not None and moments.count <= dimension]
    if not small:
        return ()
    bias = sum((moments.covariance.trace() / moments.count).item() for moments in known if moments.count is not None)
    note = (
        f'{min(small):,} samples do not span the {dimension:,} dimensions of the features: the distance is biased upwards, '
        f'by {bias:.4g} through the means alone (tr C / n) and more through the covariance; '
        f'compare it only with distances of equally many samples, and give more than {dimension:,} for a figure to cite'
    )
    logger.warning('%s', note)
    return (note,)
