"""A non-finite loss changes no parameters, on any rank, and the message names it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import GlooPool
from tests.runners.support import assert_same, build_trainer, quiet, train, write_config
from vq.core.errors import RunFailure
from vq.core.records import Losses
from vq.runners.guard import FiniteGuard
from vq.strategies.base import BaseStrategy
from vq.strategies.stepping import _masked_step, guarded_step


def bad(call: int, **values: Any) -> dict[str, Any]:
    return {'.trainer.model.losses': dict(l2=dict(type='MSELoss'), broken=dict(type='FailingLoss', call=call, **values))}


@pytest.mark.slow
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_nothing_moves_after_the_first_bad_step(tmp_path: Path, value: float) -> None:
    good = build_trainer(tmp_path / 'good', dict(iters=3), {**bad(99), **quiet()})
    good.run()
    stuck = build_trainer(tmp_path / 'bad', dict(iters=6), {**bad(4, value=value), **quiet()})
    stuck.run()  # the flag is not read here, so training continues with masked updates
    states = [trainer.optimizers['tokenizer'].state_dict()['state'] for trainer in (good, stuck)]
    assert_same(good.model.state_dict(), stuck.model.state_dict())
    assert_same(*states)
    with pytest.raises(RunFailure, match=r'broken became nan or infinite at step 4'):
        stuck.guard.check()


def test_the_log_and_the_checkpoint_raise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(write_config(tmp_path))
    code = train(
        str(tmp_path), 'run', config, '--override', '.trainer.model.losses:dict(broken=dict(type="FailingLoss", call=3))'
    )
    last = capsys.readouterr().err.strip().splitlines()
    assert code == 1
    assert last[-2].startswith('error: broken became nan or infinite at step 3')
    assert 'learning rate' in last[-1]
    assert not list((tmp_path / 'work_dirs/run/checkpoints').glob('iter_*'))


def one_rank_fails(folder: str) -> tuple[str, dict[str, torch.Tensor]]:
    trainer = build_trainer(
        Path(folder) / str(torch.distributed.get_rank()),
        dict(iters=4, strategy='ddp'),
        {**bad(2, rank=1), **quiet()},
    )
    trainer.run()
    try:
        trainer.guard.check()
    except RunFailure as error:
        return str(error), {name: value.clone() for name, value in trainer.model.state_dict().items()}
    return 'no error', {}


@pytest.mark.slow
def test_a_bad_loss_on_one_rank_stops_all(tmp_path: Path, gloo_pool: GlooPool) -> None:
    (first, one), (second, other) = gloo_pool.run(one_rank_fails, str(tmp_path))
    assert 'broken became nan or infinite at step 2' in first
    assert first == second
    assert_same(one, other)
    assert all(torch.isfinite(value).all() for value in one.values())


def test_gradients_are_judged_too() -> None:
    guard = FiniteGuard(BaseStrategy('cpu'))
    guard.observe('generator', Losses({'l2': torch.tensor(1.0)}, {'l2': 1.0}))
    guard.decide('generator', 7, torch.tensor(math.inf))
    with pytest.raises(RunFailure, match='the gradient of generator became nan or infinite at step 7'):
        guard.check()


def test_only_the_first_bad_step_is_reported() -> None:
    guard = FiniteGuard(BaseStrategy('cpu'))
    for step, values in enumerate(((1.0, 2.0), (math.nan, 1.0), (1.0, math.inf)), start=1):
        guard.observe('g', Losses(dict(zip('ab', map(torch.tensor, values), strict=True)), {'a': 1.0, 'b': 1.0}))
        guard.decide('g', step)
    with pytest.raises(RunFailure, match=r'^a became nan or infinite at step 2;'):
        guard.check()


@pytest.mark.parametrize(
    ('step', 'kind', 'settings'),
    [
        (guarded_step, torch.optim.Adam, dict(fused=True)),
        (guarded_step, torch.optim.AdamW, dict(fused=True)),
        (guarded_step, torch.optim.SGD, dict(momentum=0.9, fused=True)),
        (guarded_step, torch.optim.AdamW, {}),
        (_masked_step, torch.optim.SGD, dict(momentum=0.9)),
        (_masked_step, torch.optim.RMSprop, dict(momentum=0.9)),
    ],
)
def test_guarded_step_changes_nothing_when_not_ok(step: Any, kind: Any, settings: dict[str, Any]) -> None:
    free, guarded = (torch.nn.Parameter(torch.arange(6.0)) for _ in range(2))
    optimizers = [kind([free], lr=0.1, **settings), kind([guarded], lr=0.1, **settings)]
    refused = torch.tensor(False)
    guarded.grad = torch.full((6,), math.nan)
    step(optimizers[1], refused)  # before there is any state
    assert torch.equal(guarded, torch.arange(6.0))
    for value in range(3):
        free.grad, guarded.grad = (torch.full((6,), 1.0 + value) for _ in range(2))
        optimizers[0].step()
        step(optimizers[1], torch.tensor(True))
        guarded.grad = torch.full((6,), math.nan)
        step(optimizers[1], refused)
    assert torch.equal(free, guarded)
