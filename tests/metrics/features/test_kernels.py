"""KID and CMMD against plain formulas, torch-fidelity and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vq.core.errors import UserError
from vq.metrics.features import kernels
from vq.metrics.features.kernels import cmmd, kernel_distance, polynomial_mmd


def pair(n=61, m=61, dimension=23, shift=0.3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, dimension, generator=generator), torch.randn(m, dimension, generator=generator) + shift


def small_blocks(monkeypatch):
    monkeypatch.setattr(kernels, 'ROWS', 8)
    monkeypatch.setattr(kernels, 'COLUMNS', 13)


def plain_mmd(a, b, kernel, unbiased):
    """Every pair, one by one."""
    n, m = len(a), len(b)
    within = [sum(kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j or not unbiased) for s in (a, b)]
    between = sum(kernel(x, y) for x in a for y in b)
    counts = [size * (size - 1) if unbiased else size**2 for size in (n, m)]
    return within[0] / counts[0] + within[1] / counts[1] - 2 * between / (n * m)


@pytest.mark.parametrize(('n', 'm'), [(2, 2), (21, 34), (34, 21)])
@pytest.mark.parametrize('blocks', [False, True])
def test_polynomial_mmd_pair_by_pair(n, m, blocks, monkeypatch):
    if blocks:
        small_blocks(monkeypatch)
    a, b = pair(n, m)
    expected = plain_mmd(a.double().numpy(), b.double().numpy(), lambda x, y: (np.dot(x, y) / 23 + 1) ** 3, unbiased=True)
    assert polynomial_mmd(a, b) == pytest.approx(expected, rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize('blocks', [False, True])
def test_polynomial_mmd_against_the_peers(blocks, monkeypatch):
    """Both include the diagonal of the cross term, and divide by n n."""
    from torch_fidelity.metric_kid import kernel_mmd
    from torchmetrics.image.kid import poly_mmd

    if blocks:
        small_blocks(monkeypatch)
    a, b = (x.double() for x in pair())
    settings = dict(kid_kernel='poly', kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1)
    found = polynomial_mmd(a, b)
    assert found == pytest.approx(kernel_mmd(a.numpy(), b.numpy(), **settings), rel=1e-10)
    assert found == pytest.approx(poly_mmd(a, b).item(), rel=1e-10)


def test_subsets_of_everything_are_everything():
    a, b = pair()
    found = kernel_distance(a, b, subsets=3, subset_size=61)
    assert found.mean == pytest.approx(polynomial_mmd(a, b), rel=1e-10)
    assert found.std == pytest.approx(0, abs=1e-12)


def test_subsets_follow_from_the_seed_alone():
    a, b = pair(80, 61)
    first = kernel_distance(a, b, subsets=20, subset_size=30, seed=5)
    torch.manual_seed(9)
    assert kernel_distance(a, b, subsets=20, subset_size=30, seed=5) == first
    assert kernel_distance(a, b, subsets=20, subset_size=30, seed=6).mean != first.mean
    assert kernel_distance(a, b, subsets=20, subset_size=30, seed=5).std > 0
    words = kernels._subset(torch.arange(80)[:, None], 30, 5, 'a', 2).flatten().tolist()
    assert len(set(words)) == 30  # without replacement


def test_the_mean_over_subsets_estimates_the_whole():
    a, b = pair(400, 300)
    found = kernel_distance(a, b, subsets=200, subset_size=50)
    assert found.mean == pytest.approx(polynomial_mmd(a, b), abs=4 * found.std / 200**0.5)
    assert (found.subsets, found.subset_size, found.seed) == (200, 50, 0)


def test_unbiased_for_equal_distributions():
    """Small sets of one distribution: about zero on average, below it half of the time."""
    values = []
    for seed in range(200):
        sets = torch.randn(2, 20, 12, generator=torch.Generator().manual_seed(seed))
        values.append(polynomial_mmd(*sets))
    assert abs(np.mean(values)) < 4 * np.std(values) / 200**0.5
    assert min(values) < 0


@pytest.mark.parametrize('blocks', [False, True])
def test_cmmd_pair_by_pair(blocks, monkeypatch):
    if blocks:
        small_blocks(monkeypatch)
    a, b = pair(21, 34)
    unit = [x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1, keepdims=True) for x in (a, b)]
    expected = 1000 * plain_mmd(*unit, lambda x, y: np.exp(-np.square(x - y).sum() / 200), unbiased=False)
    assert cmmd(a, b) == pytest.approx(expected, rel=1e-8)
    assert cmmd(a * 7, b) == pytest.approx(expected, rel=1e-6)  # lengths do not matter


def test_cmmd_is_zero_for_equal_sets_and_biased_for_equal_distributions():
    values = []
    for seed in range(100):
        rows = torch.randn(50, 23, generator=torch.Generator().manual_seed(seed))
        assert cmmd(rows, rows.clone()) == pytest.approx(0, abs=1e-10)
        values.append(cmmd(rows[:30], rows[30:]))
    # independent directions: |x - y|^2 is about 2
    assert np.mean(values) == pytest.approx(1000 * (1 - np.exp(-0.01)) * (1 / 30 + 1 / 20), rel=0.02)


def test_wrong_inputs():
    a, b = pair()
    with pytest.raises(UserError, match='cannot be drawn from 61 samples'):
        kernel_distance(a, b)
    with pytest.raises(UserError, match='cannot be compared'):
        polynomial_mmd(a, b[:, :5])
    with pytest.raises(UserError, match='1 samples'):
        cmmd(a, b[:1])
    b[3] = torch.nan
    with pytest.raises(UserError, match='1 of 61 rows'):
        cmmd(a, b)
