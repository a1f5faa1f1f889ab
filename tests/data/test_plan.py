"""The order of samples against its definition, the endless row of positions."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from vq.data.plan import evaluation_plan, position_order, training_plan


def row(count: int, seed: int, length: int) -> list[tuple[int, int]]:
    """The first positions of the endless row, by its definition."""
    epochs = -(-length // count)
    return [(epoch, int(index)) for epoch in range(epochs) for index in position_order(count, seed, epoch)][:length]


def walked(count: int, batch: int, world: int, seed: int, start: int, steps: int) -> list[tuple[int, int]]:
    """The samples of all ranks in ``steps`` steps, in global order."""
    plans = [training_plan(count, batch, rank, world, seed, start) for rank in range(world)]
    return [place for _ in range(steps) for plan in plans for place in next(plan)]


@pytest.mark.parametrize('count', [1, 2, 17, 1000])
def test_each_epoch_is_a_permutation_of_its_own(count):
    orders = [position_order(count, 3407, epoch) for epoch in range(4)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(count))
    if count > 2:
        assert len({order.tobytes() for order in orders}) == 4
        assert not np.array_equal(orders[0], position_order(count, 3408, 0))


def test_order_is_pure_and_pinned():
    """Pinned values: a change here changes every resumed run."""
    np.random.seed(1)
    first = position_order(8, 3407, 2)
    np.random.seed(2)
    np.testing.assert_array_equal(first, position_order(8, 3407, 2))
    assert first.tolist() == [3, 1, 5, 2, 4, 7, 0, 6]


def test_order_has_no_memory_of_the_index():
    counts = np.zeros((6, 6))
    for epoch in range(3000):
        counts[np.arange(6), position_order(6, 0, epoch)] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 52.6  # chi-square, 25 degrees: one chance in a thousand


@pytest.mark.parametrize('count', [7, 10, 64])
@pytest.mark.parametrize(('batch', 'world'), [(1, 1), (3, 1), (16, 1), (2, 3), (5, 2), (30, 4)])
def test_all_ranks_walk_along_the_row(count, batch, world):
    steps = 9
    assert walked(count, batch, world, 5, 0, steps) == row(count, 5, steps * batch * world)


@settings(max_examples=60, deadline=None)
@given(count=some.integers(1, 40), batch=some.integers(1, 9), world=some.integers(1, 4), start=some.integers(0, 150))
def test_a_plan_from_start_is_the_tail_of_the_plan_from_zero(count, batch, world, start):
    steps = 6
    assert walked(count, batch, world, 11, start, steps) == row(count, 11, start + steps * batch * world)[start:]


def test_resuming_with_other_ranks_and_batches_repeats_and_misses_nothing():
    before = walked(50, 4, 2, 0, 0, 5)
    after = walked(50, 7, 3, 0, len(before), 10)
    assert before + after == row(50, 0, len(before) + len(after))
    first_two_epochs = collections.Counter(index for epoch, index in before + after if epoch < 2)
    assert set(first_two_epochs.values()) == {2}
    assert len(first_two_epochs) == 50


@pytest.mark.parametrize('count', [1, 5, 16, 33])
@pytest.mark.parametrize(('batch', 'world'), [(1, 1), (4, 1), (4, 2), (3, 5), (50, 2)])
def test_evaluation_sees_each_index_once_in_batches_dealt_in_turn(count, batch, world):
    ranks = [list(evaluation_plan(count, batch, rank, world)) for rank in range(world)]
    dealt = [one for turn in itertools.zip_longest(*ranks) for one in turn if one is not None]
    assert [index for one in dealt for _, index in one] == list(range(count))
    assert {epoch for one in dealt for epoch, _ in one} == {0}
    assert all(len(one) == batch for one in dealt[:-1])
    assert max(map(len, ranks)) - min(map(len, ranks)) <= 1


@pytest.mark.parametrize(('count', 'batch', 'rank', 'world'), [(0, 1, 0, 1), (5, 0, 0, 1), (5, 1, 2, 2), (5, 1, -1, 2)])
def test_impossible_plans_are_refused(count, batch, rank, world):
    for plan in (training_plan(count, batch, rank, world, 0), evaluation_plan(count, batch, rank, world)):
        with pytest.raises(ValueError, match='no plan for'):
            next(plan)
