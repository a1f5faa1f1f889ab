"""Precision, recall, density and coverage against torch-fidelity and distances computed one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vq.core.errors import UserError
from vq.metrics.features import neighbours
from vq.metrics.features.neighbours import density_coverage, nearest, precision_recall


def sets(n=97, m=83, dimension=7, shift=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dimension, generator=generator), torch.randn(m, dimension, generator=generator) * 0.8 + shift


@pytest.fixture(params=[False, True], ids=['one block', 'many blocks'])
def _blocks(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(neighbours, 'ROWS', 9)
        monkeypatch.setattr(neighbours, 'COLUMNS', 10)


def by_hand(real, generated, k):
    """All distances, by the papers' definitions."""
    real, generated = real.double().numpy(), generated.double().numpy()
    distances = [
        np.linalg.norm(a[:, None] - b[None], axis=2) for a, b in ((real, real), (generated, generated), (real, generated))
    ]
    real_radii, generated_radii = (np.sort(square, axis=1)[:, k] for square in distances[:2])  # the first is the row itself
    between = distances[2]
    return {
        'precision': (between <= real_radii[:, None]).any(0).mean(),
        'recall': (between <= generated_radii[None]).any(1).mean(),
        'density': (between < real_radii[:, None]).sum() / (k * len(generated)),
        'coverage': (between.min(1) < real_radii).mean(),
    }


def found(real, generated, k):
    first, second = precision_recall(real, generated, k), density_coverage(real, generated, k)
    return {name: getattr(part, name) for part in (first, second) for name in part._fields if name != 'neighbours'}


@pytest.mark.usefixtures('_blocks')
@pytest.mark.parametrize('k', [1, 3, 5, 20])
@pytest.mark.parametrize('sizes', [(97, 83), (30, 100)])
def test_by_hand(k, sizes):
    expected = by_hand(*sets(*sizes), k)
    assert found(*sets(*sizes), k) == pytest.approx(expected, rel=1e-12)
    assert k > 5 or 0 < expected['recall'] < expected['precision'] <= 1


@pytest.mark.usefixtures('_blocks')
@pytest.mark.parametrize('k', [1, 3, 5])
def test_against_torch_fidelity(k):
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    real, generated = (x.double() for x in sets())
    precision, recall = calculate_precision_recall_full(generated, real, neighborhood=k)
    assert precision_recall(real, generated, k)[:2] == pytest.approx((precision, recall), rel=1e-6)


@pytest.mark.usefixtures('_blocks')
def test_a_set_in_itself():
    """Every row is in balls of others, and in k balls on average if borders do not belong to balls."""
    real, _ = sets(dimension=40)
    assert precision_recall(real, real.clone()) == (1, 1, 3)
    assert density_coverage(real, real.clone()) == (1, 1, 5)


@pytest.mark.slow
@pytest.mark.usefixtures('_blocks')
def test_repeated_rows_have_no_distance():
    """Rounding does not give equal rows a distance, even for long rows."""
    real, _ = sets()
    many = torch.cat([real + 1e3] * 5)  # radii of zero for k = 4
    assert nearest(many.double(), 4).eq(0).all()
    assert precision_recall(many, real + 1e3, 4).precision == 1
    assert density_coverage(many, real + 1e3, 4) == (0, 0, 4)  # a ball of radius zero contains nothing


def test_sets_apart():
    real, generated = sets(shift=1e3)
    assert found(real, generated, 5) == {'precision': 0, 'recall': 0, 'density': 0, 'coverage': 0}


def test_one_point_for_all():
    """Recall, density and coverage show the collapse that precision hides."""
    real, _ = sets()
    collapsed = real[:1].repeat(50, 1) + torch.randn(50, 7, generator=torch.Generator().manual_seed(4)) * 1e-4
    result = found(real, collapsed, 3)
    assert result['precision'] == 1
    assert result['recall'] < 0.05 and result['coverage'] < 0.2


def test_wrong_inputs():
    real, generated = sets()
    with pytest.raises(UserError, match='no neighbour number 83'):
        precision_recall(real, generated, 83)
    with pytest.raises(UserError, match='no neighbour number 0'):
        density_coverage(real, generated, 0)
    with pytest.raises(UserError, match='cannot be compared'):
        density_coverage(real, generated[:, :3])
    generated[:2] = torch.inf
    with pytest.raises(UserError, match='2 of 83 rows'):
        precision_recall(real, generated)
