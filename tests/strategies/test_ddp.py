"""What DDP adds: an answer all ranks share, one wrapper per root, a group of one."""

from __future__ import annotations

import os

import pytest
import torch
import torch.distributed as distributed

from tests.ranks import GlooPool
from vq.core import collectives
from vq.strategies.ddp import DDPStrategy


def agreement() -> list[bool]:
    strategy = DDPStrategy()
    strategy.start()
    # rank 1 is asked to stop before its third step: all ranks hear it one step later, the same one
    answers = [strategy.agree(step >= 3 and strategy.rank == 1) for step in range(1, 7)]
    strategy.stop()
    return answers


@pytest.mark.slow
def test_ranks_agree_on_the_step_to_stop_after(gloo_pool: GlooPool) -> None:
    first, second = gloo_pool.run(agreement)
    assert first == second == [False, False, False, True, True, True]


def wrapped_kinds() -> tuple[list[str], bool]:
    strategy = DDPStrategy()
    strategy.start()
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    roots = strategy.wrap({'generator': torch.nn.Linear(2, 2), 'discriminator': torch.nn.Linear(2, 2), 'frozen': frozen})
    kinds = [type(root).__name__ for root in roots.values()]
    buffers = any(root.broadcast_buffers for root in roots.values() if hasattr(root, 'broadcast_buffers'))
    strategy.stop()
    return kinds, buffers


@pytest.mark.slow
def test_each_root_is_wrapped_on_its_own_and_buffers_stay(gloo_pool: GlooPool) -> None:
    assert gloo_pool.run(wrapped_kinds) == [(['DistributedDataParallel', 'DistributedDataParallel', 'Linear'], False)] * 2


def test_without_a_launcher_it_is_a_group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    assert 'RANK' not in os.environ
    strategy = DDPStrategy(device='cpu')
    strategy.start()
    try:
        assert (strategy.rank, strategy.world_size, collectives.size()) == (0, 1, 1)
        assert strategy.agree(True)
    finally:
        strategy.stop()
    assert not distributed.is_initialized()
