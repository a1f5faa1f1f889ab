"""The Frechet distance against closed forms, pytorch-fid and torch-fidelity."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from tests.metrics.features.test_statistics import collect, rows
from vq.core.errors import UserError
from vq.metrics.features.frechet import frechet_distance
from vq.metrics.features.statistics import Moments


def rotation(dimension, seed=0):
    return torch.linalg.qr(torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(seed)).double())[0]


def diagonal(seed, dimension=30):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(dimension, generator=generator).double(), torch.rand(dimension, generator=generator).double() * 3


def by_hand(a, b):
    """Covariances that commute: sum (m - n)^2 + (s^(1/2) - t^(1/2))^2."""
    return ((a[0] - b[0]).square().sum() + (a[1].sqrt() - b[1].sqrt()).square().sum()).item()


@pytest.mark.parametrize('dimension', [1, 2, 30])
def test_diagonal_and_commuting_covariances(dimension):
    a, b, turn = diagonal(0, dimension), diagonal(1, dimension), rotation(dimension)
    plain = frechet_distance(Moments(a[0], a[1].diag()), Moments(b[0], b[1].diag()))
    assert plain.value == pytest.approx(by_hand(a, b), rel=1e-12)
    assert plain.of_means == pytest.approx((a[0] - b[0]).square().sum().item(), rel=1e-12)
    turned = frechet_distance(*(Moments(turn @ mean, turn @ variance.diag() @ turn.T) for mean, variance in (a, b)))
    assert turned.value == pytest.approx(by_hand(a, b), rel=1e-10)


def test_spectra_over_many_decades():
    """Two close sets, as of good reconstructions: the traces cancel, and the remainder must be precise."""
    a = torch.zeros(200).double(), torch.logspace(0, -10, 200).double()
    b = a[0], a[1] * torch.linspace(0.98, 1.03, 200).double()
    turn = rotation(200)
    found = frechet_distance(*(Moments(turn @ mean, turn @ variance.diag() @ turn.T) for mean, variance in (a, b)))
    assert found.value == pytest.approx(by_hand(a, b), rel=1e-9)


def test_singular_covariances_by_hand():
    """Some directions have no variance, in one set or in both."""
    a, b, turn = diagonal(0), diagonal(1), rotation(30)
    a[1][:12] = 0
    b[1][8:20] = 0
    found = frechet_distance(*(Moments(turn @ mean, turn @ variance.diag() @ turn.T) for mean, variance in (a, b)))
    assert found.value == pytest.approx(by_hand(a, b), rel=1e-6)


@pytest.mark.parametrize('count', [400, 12])
def test_a_set_has_no_distance_to_itself(count):
    moments = collect(rows(count), 64).compute()
    assert frechet_distance(moments, moments).value == pytest.approx(0, abs=1e-9 * moments.covariance.trace().item())


@pytest.mark.filterwarnings('ignore:The `disp` argument')
@pytest.mark.parametrize('counts', [(400, 300), (400, 20), (25, 300), (15, 20)])
def test_against_the_peers(counts):
    """Also for few samples of 37 dimensions, with singular covariances. The distance is symmetric."""
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    features = [
        rows(count, offset=offset, seed=seed) for seed, (count, offset) in enumerate(zip(counts, (0, 0.7), strict=True))
    ]
    a, b = (collect(part, 64).compute() for part in features)
    found = frechet_distance(a, b)
    theirs = [fid_features_to_statistics(part) for part in features]
    expected = fid_statistics_to_metric(*theirs, verbose=False)['frechet_inception_distance']
    singular = min(counts) <= 37
    assert found.value == pytest.approx(expected, rel=1e-6 if singular else 1e-10)
    assert frechet_distance(b, a).value == pytest.approx(found.value, rel=1e-9)
    other = calculate_frechet_distance(theirs[0]['mu'], theirs[0]['sigma'], theirs[1]['mu'], theirs[1]['sigma'])
    assert found.value == pytest.approx(other, rel=1e-5 if singular else 1e-9)


def test_too_few_samples_are_said_and_logged(caplog):
    small, large = collect(rows(37), 64).compute(), collect(rows(38), 64).compute()
    with caplog.at_level(logging.WARNING, 'vq'):
        assert frechet_distance(large, large).notes == ()
        assert not caplog.records
        (note,) = frechet_distance(small, large).notes
    assert '37 samples' in note and 'biased upwards' in note
    assert [record.getMessage() for record in caplog.records] == [note]
    unknown = Moments(small.mean, small.covariance)
    assert frechet_distance(unknown, unknown).notes == ()  # a file without a count


@pytest.mark.slow
def test_the_bias_of_the_means_is_what_the_note_says(caplog):
    """Two small sets of one distribution: |m_a - m_b|^2 is tr C / n_a + tr C / n_b on average."""
    found, said = [], []
    for seed in range(200):
        sets = torch.randn(2, 20, 24, generator=torch.Generator().manual_seed(seed)).double()
        result = frechet_distance(*(collect(part, 64).compute() for part in sets))
        found.append(result.of_means)
        said.append(float(result.notes[0].split('by ')[1].split()[0]))
    assert np.mean(found) == pytest.approx(24 / 20 * 2, rel=0.05)
    assert np.mean(said) == pytest.approx(24 / 20 * 2, rel=0.01)


def test_statistics_that_cannot_be_compared():
    good = Moments(torch.zeros(3).double(), torch.eye(3).double())
    with pytest.raises(UserError, match='3 and of 4'):
        frechet_distance(good, Moments(torch.zeros(4).double(), torch.eye(4).double()))
    with pytest.raises(UserError, match='NaN'):
        frechet_distance(good, Moments(torch.zeros(3).double(), torch.eye(3).double() * torch.nan))
    with pytest.raises(UserError, match='does not fit'):
        frechet_distance(Moments(torch.zeros(3).double(), torch.eye(4).double()), good)
