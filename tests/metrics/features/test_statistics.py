"""Streaming mean and covariance against NumPy, and their independence of batches and order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vq.core.errors import UserError
from vq.metrics.features import statistics
from vq.metrics.features.statistics import FeatureStatistics


def rows(count, dimension=37, offset=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    return torch.randn(count, dimension, generator=generator, dtype=torch.float64) @ mixing + offset


def collect(features, size):
    found = FeatureStatistics(features.shape[1])
    for part in torch.split(features, size):
        found.update(part)
    return found


def close(moments, features, rtol=1e-9):
    exact = features.double().numpy()
    if exact.shape[1] < 100:  # no BLAS for more digits
        exact = exact.astype(np.longdouble)
    mean = exact.mean(0)
    covariance = (exact - mean).T @ (exact - mean) / (len(exact) - 1)
    assert moments.count == len(exact)
    np.testing.assert_allclose(moments.mean.numpy(), mean.astype(np.float64), rtol=rtol, atol=rtol * np.abs(mean).max())
    scale = float(np.abs(covariance).max())
    np.testing.assert_allclose(moments.covariance.numpy(), covariance.astype(np.float64), rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize('size', [1, 7, 64, 512, 5000])
def test_against_numpy_for_any_batch(size):
    features = rows(1300)
    close(collect(features, size).compute(), features, rtol=1e-12)


@pytest.mark.parametrize('dimension', [1, 2, 513, 1030])
def test_dimensions_around_the_size_of_a_panel(dimension):
    features = rows(700, dimension)
    close(collect(features, 64).compute(), features, rtol=1e-11)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_inputs_are_summed_in_float64(dtype):
    features = rows(900).to(dtype)
    found = collect(features, 64).compute()
    assert found.mean.dtype == found.covariance.dtype == torch.float64
    close(found, features, rtol=1e-12)


def test_a_large_offset_does_not_cancel():
    features = rows(1300, offset=1e7)
    close(collect(features, 64).compute(), features, rtol=1e-8)
    naive = features.T @ features / 1299 - torch.outer(features.mean(0), features.mean(0)) * 1300 / 1299
    with pytest.raises(AssertionError):  # the reason for the shift
        np.testing.assert_allclose(naive.numpy(), np.cov(features.numpy(), rowvar=False), rtol=1e-3)


@pytest.mark.parametrize('cuts', [(1, 1299), (600, 700), (512, 788), (0, 1300)])
def test_merged_parts_are_the_whole(cuts):
    features = rows(1300, offset=3.0)
    first, second = (collect(part, 64) for part in torch.split(features, list(cuts)))
    first.merge(second)
    close(first.compute(), features, rtol=1e-12)
    more = rows(100, seed=1)
    first.update(more)  # the statistics accept further rows
    close(first.compute(), torch.cat([features, more]), rtol=1e-12)
    close(second.compute(), features[cuts[0] :], rtol=1e-12)  # and the other is unchanged


def test_state_is_plain_and_complete():
    features = rows(1300)
    half = collect(features[:700], 64)
    state = half.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    again = FeatureStatistics(37)
    again.load_state_dict(state)
    for statistic in (half, again):
        statistic.update(features[700:])
        close(statistic.compute(), features, rtol=1e-12)
    with pytest.raises(ValueError, match='37 numbers where 5'):
        FeatureStatistics(5).load_state_dict(state)


def test_reading_midway_changes_nothing():
    features, found = rows(1300), FeatureStatistics(37)
    for part in torch.split(features, 100):
        found.update(part)
        if found.count > 1:
            found.compute()
    close(found.compute(), features, rtol=1e-12)
    before = found.compute()
    assert torch.equal(before.covariance, found.compute().covariance)
    assert torch.equal(before.covariance, before.covariance.T)


def test_memory_does_not_grow():
    def tensors(found):
        return sum(value.numel() for value in vars(found).values() if isinstance(value, torch.Tensor))

    few, many = collect(rows(600), 64), collect(rows(6000), 64)
    assert tensors(few) == tensors(many) == 37 * (37 + 2 + statistics.BLOCK)


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_finite_are_counted(value):
    features = rows(700)
    features[[3, 600, 601], [0, 5, 36]] = value
    found = collect(features, 64)
    with pytest.raises(UserError, match='3 of 700 rows'):
        found.compute()
    other = collect(rows(50), 50)
    other.merge(found)
    with pytest.raises(UserError, match='3 of 750 rows'):
        other.compute()


def test_too_few_rows_and_wrong_shapes():
    with pytest.raises(UserError, match='there are 1'):
        collect(rows(1), 1).compute()
    with pytest.raises(UserError, match='there are 0'):
        FeatureStatistics(3).compute()
    with pytest.raises(ValueError, match='not rows of 3'):
        FeatureStatistics(3).update(torch.zeros(2, 4))
    with pytest.raises(ValueError, match='merged'):
        FeatureStatistics(3).merge(FeatureStatistics(4))
