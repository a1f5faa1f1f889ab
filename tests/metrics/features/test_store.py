"""The result of a pass does not depend on batches, order, ranks or repeated samples; its memory does not either."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vq.core import collectives
from vq.core.errors import UserError
from vq.core.random import key_of
from vq.interfaces import Features
from vq.metrics.features import store as module
from vq.metrics.features.frechet import frechet_distance
from vq.metrics.features.store import FeatureStore

COUNT, DIMENSION = 203, 17


def features_of(count=COUNT, dimension=DIMENSION):
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(dimension, dimension, generator=generator)
    pooled = torch.randn(count, dimension, generator=generator) @ mixing + 5
    return Features(pooled, pooled[:, :7] * 2, pooled.square())


KEYS = torch.tensor([key_of(f'image {row}') for row in range(COUNT)])
IN_ORDER = torch.from_numpy(np.argsort(KEYS.numpy()))


def make_store(**settings):
    return FeatureStore(**dict(dict(statistics=('pooled', 'spatial'), keep=('pooled', 'logits')), **settings))


def collect(rows, size=64, store=None, **settings):
    """A pass over ``rows`` of the features, in batches."""
    store = make_store(**settings) if store is None else store
    features = features_of()
    for part in torch.split(torch.as_tensor(rows, dtype=torch.int64), size):
        store.add(KEYS[part], Features(*(column[part] for column in features)))
    return store


def check(found, rows=range(COUNT), rtol=1e-9):
    """Against NumPy, in the order of keys."""
    order = torch.tensor([row for row in IN_ORDER.tolist() if row in set(rows)])
    features = features_of()
    assert torch.equal(found.keys, KEYS[order])
    for name in ('pooled', 'spatial'):
        exact = getattr(features, name)[order].double().numpy()
        moments, covariance = found.moments[name], np.cov(exact, rowvar=False)
        assert moments.count == found.count == len(order)
        np.testing.assert_allclose(moments.mean.numpy(), exact.mean(0), rtol=rtol)
        np.testing.assert_allclose(moments.covariance.numpy(), covariance, rtol=rtol, atol=rtol * np.abs(covariance).max())
    for name in ('pooled', 'logits'):
        kept = found.rows(name, everywhere=True)
        assert torch.equal(kept, getattr(features, name)[order].to(kept.dtype))


def shuffled(rows):
    rows = torch.as_tensor(rows)
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(3))]


PASSES = {
    'in order': range(COUNT),
    'backwards': range(COUNT - 1, -1, -1),
    'shuffled': shuffled(range(COUNT)).tolist(),
    'repeated': shuffled([*range(COUNT), *range(0, COUNT, 3), 7, 7, 7]).tolist(),
}


@pytest.fixture(params=[1024, 50], ids=['one chunk', 'chunks'])
def _chunks(request, monkeypatch):
    monkeypatch.setattr(module, 'CHUNK', request.param)


@pytest.mark.usefixtures('_chunks')
@pytest.mark.parametrize('size', [1, 7, 64])
@pytest.mark.parametrize('name', PASSES)
def test_one_rank(name, size):
    found = collect(PASSES[name], size).finish()
    check(found)
    assert found.repeated == len(PASSES[name]) - COUNT


def test_the_first_of_repeated_samples_counts():
    store = FeatureStore(keep=('pooled',))
    for value in (1.0, 2.0):
        store.add(torch.tensor([4, 3, 3]), Features(torch.full((3, 2), value) + torch.tensor([[0.0], [0.1], [0.2]])))
    found = store.finish()
    assert (found.count, found.repeated) == (2, 4)
    torch.testing.assert_close(found.rows('pooled'), torch.tensor([[1.1, 1.1], [1.0, 1.0]]))


def test_a_store_can_be_used_again():
    store = collect(range(60))
    store.finish()
    check(collect(range(50, COUNT), store=store).finish(), range(50, COUNT))
    collect(range(60), store=store)
    store.reset()
    check(collect(range(50, COUNT), store=store).finish(), range(50, COUNT))


@pytest.mark.usefixtures('_chunks')
def test_a_pass_that_was_interrupted_goes_on():
    first = collect(range(120), 7)
    state = first.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    again = make_store()
    again.load_state_dict(state)
    check(collect(range(110, COUNT), 64, again).finish())
    check(collect(range(110, COUNT), 64, first).finish())


@pytest.mark.gpu
@pytest.mark.usefixtures('_chunks')
@pytest.mark.parametrize('size', [7, 64])
def test_features_on_a_gpu(size):
    store, features = make_store(), Features(*(column.cuda() for column in features_of()))
    for part in torch.split(shuffled(range(COUNT)), size):
        batch = Features(*(column[part.cuda()] for column in features))
        store.add(KEYS[part].cuda(), batch)
    check(store.finish())


def test_half_precision_rows_with_statistics_of_full_ones():
    found = collect(range(COUNT), dtype=torch.float16).finish()
    assert found.rows('pooled').dtype == torch.float16
    check(found)
    store = FeatureStore(keep=('pooled',), dtype=torch.float16)
    store.add(torch.arange(3), Features(torch.full((3, 2), 1e5)))
    with pytest.raises(UserError, match='too large for fp16'):
        store.finish().rows('pooled')


def test_spatial_maps_are_rows():
    store = FeatureStore(statistics=('spatial',))
    store.add(torch.arange(5), Features(torch.zeros(5, 2), None, torch.randn(5, 3, 2, 2)))
    assert store.finish().moments['spatial'].covariance.shape == (12, 12)


def test_memory_is_that_of_the_sums(monkeypatch):
    """On one rank, with statistics alone, only keys of 8 bytes are kept of each row."""
    monkeypatch.setattr(module, 'CHUNK', 32)

    def held(count):
        store = collect(range(count), 8, statistics=('pooled',), keep=())
        return store, sum(chunk.size for chunk in [*store._waiting, *store._kept, store._travelling[0]])

    (few, few_bytes), (many, many_bytes) = held(64), held(192)
    assert few_bytes == many_bytes == 32 * DIMENSION * 4
    assert len(many._seen) - len(few._seen) == 128


def test_wrong_inputs():
    with pytest.raises(ValueError, match='texture'):
        FeatureStore(keep=('texture',))
    with pytest.raises(UserError, match="no 'logits'"):
        FeatureStore(keep=('logits',)).add(torch.arange(2), Features(torch.zeros(2, 3)))
    with pytest.raises(UserError, match='no image'):
        FeatureStore().finish()
    with pytest.raises(ValueError, match="'pooled' were not kept"):
        collect(range(9), keep=()).finish().rows('pooled')
    store = FeatureStore()
    store.add(torch.arange(4), Features(torch.tensor([[0.0, torch.nan]] * 2 + [[1.0, 2.0]] * 2)))
    with pytest.raises(UserError, match='2 of 4 rows'):
        store.finish()


# two ranks


def share(kind):
    """The rows of this rank."""
    rank = collectives.rank()
    halves = [list(range(130)), list(range(130, COUNT))]
    if kind == 'disjoint':
        return halves[rank]
    if kind == 'overlapping':  # and repeated within the rank
        return [*halves[rank], *range(100, 150), *range(100, 110)]
    if kind == 'both see all':
        return shuffled(range(COUNT)).tolist() if rank else range(COUNT)
    assert kind == 'one sees nothing'
    return [] if rank == 0 else range(COUNT)


def pass_of_rank(kind, size, settings, chunk=50):
    module.CHUNK = chunk
    try:
        found = collect(share(kind), size, **settings).finish()
        check(found)
        main_only = found.rows('logits')
        assert (main_only is None) == (collectives.rank() > 0)
        return found.repeated, {name: (m.mean, m.covariance) for name, m in found.moments.items()}
    finally:
        module.CHUNK = 1024


def refused(kind, settings):
    module.CHUNK = 50
    try:
        with pytest.raises(UserError, match='were on several ranks') as caught:
            collect(share(kind), 64, **settings).finish()
        return caught.value.message
    finally:
        module.CHUNK = 1024


REPEATED = {'disjoint': 0, 'overlapping': 2 * 60, 'both see all': COUNT, 'one sees nothing': 0}


@pytest.mark.slow
@pytest.mark.parametrize('size', [1, 7, 64])
@pytest.mark.parametrize('kind', REPEATED)
def test_two_ranks(gloo_pool, kind, size):
    """Both ranks have bitwise equal results, equal to those of one rank."""
    first, second = gloo_pool.run(pass_of_rank, kind, size, {})
    assert first[0] == second[0] == REPEATED[kind]
    for name, tensors in first[1].items():
        assert all(torch.equal(a, b) for a, b in zip(tensors, second[1][name], strict=True))
    alone = collect(range(COUNT)).finish().moments
    for name, (mean, covariance) in first[1].items():
        torch.testing.assert_close(mean, alone[name].mean, rtol=1e-9, atol=0)
        scale = covariance.abs().max().item()
        torch.testing.assert_close(covariance, alone[name].covariance, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.slow
def test_without_a_budget_repeats_across_ranks_are_an_error_and_never_a_figure(gloo_pool):
    gloo_pool.run(pass_of_rank, 'disjoint', 7, {'budget': 0})
    gloo_pool.run(pass_of_rank, 'one sees nothing', 7, {'budget': 0})
    messages = gloo_pool.run(refused, 'overlapping', {'budget': 0})
    assert messages == ['50 samples were on several ranks, and their features were already summed'] * 2


def budget_of_rank():
    """The first rank adds rows before the end, the second buffers all its rows: none is lost or counted twice."""
    return pass_of_rank('both see all', 7, {'budget': 50 * DIMENSION * 4 * 2 if collectives.rank() == 0 else 2**30})


@pytest.mark.slow
def test_rows_added_on_one_rank_are_dropped_by_the_other(gloo_pool):
    assert [found[0] for found in gloo_pool.run(budget_of_rank)] == [COUNT] * 2


def end_to_end(world):
    """A distance between two passes."""
    rank = collectives.rank() if world > 1 else 0
    rows = [list(range(rank * 40, 100 + rank * 3)), list(range(100 - rank * 5, COUNT - 60 * (world - 1 - rank)))]
    a, b = (collect(part, 7).finish().moments['pooled'] for part in rows)
    return frechet_distance(a, b).value


@pytest.mark.slow
def test_a_distance_over_two_ranks(gloo_pool):
    alone = frechet_distance(
        collect(range(103)).finish().moments['pooled'], collect(range(95, COUNT)).finish().moments['pooled']
    ).value
    assert gloo_pool.run(end_to_end, 2) == pytest.approx([alone, alone], rel=1e-9)
