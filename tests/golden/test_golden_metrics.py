"""Metrics of given features reproduce the figures of pytorch-fid and torch-fidelity."""

from __future__ import annotations

import pytest
import torch

from vq.metrics.features.frechet import frechet_distance
from vq.metrics.features.inception_score import inception_score
from vq.metrics.features.kernels import kernel_distance, polynomial_mmd
from vq.metrics.features.neighbours import precision_recall
from vq.metrics.features.statistics import FeatureStatistics


@pytest.fixture
def peer(golden):
    return golden('metrics_features')


def statistics(features):
    found = FeatureStatistics(features.shape[1])
    for part in torch.split(features, 7):
        found.update(part)
    return found.compute()


def test_statistics_and_frechet_distance(peer):
    found = [statistics(peer[f'in/features{number}']) for number in (1, 2)]
    for number, moments in enumerate(found, 1):
        torch.testing.assert_close(moments.mean, peer[f'out/mu{number}'], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(moments.covariance, peer[f'out/sigma{number}'], rtol=1e-12, atol=1e-12)
    distance = frechet_distance(*found).value
    assert distance == pytest.approx(peer['out/frechet'].item(), rel=1e-9)
    assert distance == pytest.approx(peer['out/torch_fidelity_frechet'].item(), rel=1e-9)


def test_inception_score(peer):
    four, one = (inception_score(peer['in/logits'], splits) for splits in (4, 1))
    assert four.mean == pytest.approx(peer['out/inception_score_mean_4_splits'].item(), rel=1e-12)
    assert four.std == pytest.approx(peer['out/inception_score_std_4_splits'].item(), rel=1e-10)
    assert one.mean == pytest.approx(peer['out/inception_score_1_split'].item(), rel=1e-12)


def test_kernel_distance(peer):
    first, second = peer['in/features1'], peer['in/features2']
    expected = peer['out/kid_single_subset_mmd'].item()
    assert polynomial_mmd(first, second) == pytest.approx(expected, rel=1e-10)
    assert kernel_distance(first, second, subsets=2, subset_size=64).mean == pytest.approx(expected, rel=1e-10)


def test_precision_and_recall(peer):
    """The first set counts as generated."""
    found = precision_recall(peer['in/features2'], peer['in/features1'], 3)
    assert found.precision == peer['out/prc_precision'].item()
    assert found.recall == peer['out/prc_recall'].item()
