"""The same calls on one process and on two gloo ranks."""

from __future__ import annotations

import pytest
import torch

from tests.core import collective_calls as calls
from vq.core import collectives


def test_alone_every_operation_is_the_identity():
    value = torch.randn(3, requires_grad=True)
    assert calls.who() == (0, 1, True)
    assert all(collectives.all_reduce(value, operation) is value for operation in ('sum', 'max', 'min'))
    assert collectives.all_gather(value)[0] is value and collectives.broadcast(value) is value
    assert collectives.all_gather_object('x') == ['x']
    assert collectives.barrier() is None


def test_a_strategy_installs_another_back_end_and_takes_it_back():
    class Doubling(collectives.SingleProcess):
        rank, size = 1, 2

        def all_reduce(self, value, operation):
            return 2 * value

    collectives.install(Doubling())
    assert (collectives.rank(), collectives.size(), collectives.is_main()) == (1, 2, False)
    assert collectives.all_reduce(torch.tensor(3)) == 6
    collectives.install(None)
    assert (collectives.rank(), collectives.size(), collectives.is_main()) == (0, 1, True)


@pytest.mark.slow
class TestRanks:
    def test_who(self, gloo_pool):
        assert gloo_pool.run(calls.who) == [(0, 2, True), (1, 2, False)]

    @pytest.mark.parametrize(('operation', 'factors'), [('sum', (1, -2)), ('max', None), ('min', None)])
    def test_all_reduce_takes_strided_input_and_leaves_it_alone(self, gloo_pool, operation, factors):
        one = torch.arange(6.0).view(2, 3).t()
        expected = one - 2 * one if operation == 'sum' else getattr(torch, f'{operation}imum')(one, -2 * one)
        for (result, value), factor in zip(gloo_pool.run(calls.reduce_strided, operation), (1, -2), strict=True):
            assert torch.equal(result, expected) and torch.equal(value, factor * one)

    def test_all_reduce_gives_all_ranks_the_same_bits(self, gloo_pool):
        first, second = gloo_pool.run(calls.reduce_hard_sums)
        assert torch.equal(first, second)

    def test_results_carry_no_gradient(self, gloo_pool):
        assert gloo_pool.run(calls.reduce_with_gradient) == [False, False]

    def test_all_gather_is_in_order_of_rank(self, gloo_pool):
        for matrices, flags in gloo_pool.run(calls.gather):
            assert [matrix.tolist() for matrix in matrices] == [[[0, 0], [0, 0]], [[1, 1], [1, 1]]]
            assert [bool(flag) for flag in flags] == [False, True]

    def test_objects(self, gloo_pool):
        assert gloo_pool.run(calls.gather_objects) == [[{}, {'rank': 1}]] * 2

    @pytest.mark.parametrize('source', [0, 1])
    def test_broadcast_leaves_the_input_alone(self, gloo_pool, source):
        for rank, (result, value) in enumerate(gloo_pool.run(calls.broadcast_from, source)):
            assert result.tolist() == [float(source)] * 3 and value.tolist() == [float(rank)] * 3
