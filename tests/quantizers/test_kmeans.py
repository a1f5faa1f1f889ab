"""k-means over the features of all ranks, against Lloyd's algorithm written out in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vq.core import collectives
from vq.quantizers.updates.kmeans import draw_features, kmeans, mean_lengths


def blobs(rows: int, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    centres = torch.randn(11, 4, generator=stream) * 3
    return centres[torch.randint(11, (rows,), generator=stream)] + torch.randn(rows, 4, generator=stream)


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def by_hand(rows: Tensor, centres: Tensor, iterations: int, cosine: bool) -> tuple[Tensor, list[float]]:
    """Lloyd's algorithm with all distances at once; every centre has features here."""
    rows, centres = rows.double(), centres.double()
    rows, inertia = unit(rows) if cosine else rows, []
    for iteration in range(iterations + 1):
        distance = (rows[:, None] - centres).square().sum(2)
        inertia.append(distance.min(1).values.mean().item())
        if iteration < iterations:
            tokens = distance.argmin(1)
            means = torch.stack([rows[tokens == code].mean(0) for code in range(len(centres))])
            centres = unit(means) if cosine else means
    return centres, inertia


@pytest.mark.parametrize('metric', ['l2', 'cosine'])
def test_same_as_by_hand_from_the_same_start(metric):
    rows = blobs(700)
    start = unit(rows[:13]) if metric == 'cosine' else rows[:13].clone()
    clusters = kmeans(rows.split(100), 13, metric, iterations=8, start=start)
    centres, inertia = by_hand(rows, start, 8, metric == 'cosine')
    torch.testing.assert_close(clusters.centres.double(), centres, rtol=1e-5, atol=1e-5)
    assert clusters.inertia == pytest.approx(inertia, rel=1e-5)
    assert clusters.counts.sum() == 700


@pytest.mark.parametrize('metric', ['l2', 'cosine'])
def test_inertia_never_rises(metric):
    clusters = kmeans(blobs(900, 1).split(90), 60, metric, iterations=12, seed=3)
    assert len(clusters.inertia) == 13
    for before, after in zip(clusters.inertia, clusters.inertia[1:], strict=False):
        assert after <= before * (1 + 1e-6)
    assert clusters.inertia[-1] < 0.8 * clusters.inertia[0]
    if metric == 'cosine':
        torch.testing.assert_close(clusters.centres.norm(dim=1), torch.ones(60))


def test_the_start_is_different_features_and_depends_on_the_seed():
    rows = blobs(200)
    starts = [kmeans([rows], 40, iterations=0, seed=seed).centres for seed in (0, 0, 1)]
    for start in starts:
        assert all((rows == row).all(1).any() for row in start)
        assert len(start.unique(dim=0)) == 40
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_a_centre_without_features_moves_to_one():
    rows = torch.cat([torch.randn(200, 2), torch.randn(200, 2) + 20])
    start = torch.tensor([[0.0, 0.0], [20.0, 20.0], [500.0, 0.0], [0.0, 500.0]])
    clusters = kmeans([rows], 4, iterations=1, start=start)
    assert (clusters.counts > 0).all()
    assert clusters.inertia[1] < clusters.inertia[0]
    assert kmeans([rows], 4, iterations=6, start=start).inertia[-1] < clusters.inertia[1]


def test_lengths_that_fit_directions():
    """The multiple s d of a direction d nearest to its features x has s = mean of x . d."""
    rows = blobs(300)
    directions = kmeans([rows], 9, 'cosine', iterations=5).centres
    lengths = mean_lengths([rows[:100], rows[100:]], directions)
    tokens = (unit(rows) @ directions.t()).argmax(1)
    for code in range(9):
        of_code = rows[tokens == code]
        costs = [
            (of_code - s * directions[code]).square().sum()
            for s in (lengths[code] * 0.98, lengths[code], lengths[code] * 1.02)
        ]
        assert costs[1] < costs[0] and costs[1] < costs[2]


def on_ranks(rows: Tensor, metric: str) -> dict[str, object]:
    """Each rank has its share of every batch."""
    shares = [batch.chunk(collectives.size())[collectives.rank()] for batch in rows.split(80)]
    drawn, there = draw_features(shares, 30, 5, 2)
    clusters = kmeans(shares, 30, metric, iterations=6, seed=7)
    return dict(drawn=drawn, there=there, lengths=mean_lengths(shares, unit(clusters.centres)), **vars(clusters))


@pytest.mark.slow
@pytest.mark.parametrize('metric', ['l2', 'cosine'])
def test_two_ranks_do_what_one_does_with_all_features(gloo_pool, metric):
    rows = blobs(640, 2)
    first, second = gloo_pool.run(on_ranks, rows, metric)
    alone = on_ranks(rows, metric)
    assert torch.equal(first['drawn'], alone['drawn'])
    for name in ('drawn', 'there', 'centres', 'counts', 'lengths'):
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], alone[name], rtol=1e-5, atol=1e-5)
    assert first['inertia'] == second['inertia'] == pytest.approx(alone['inertia'], rel=1e-5)
