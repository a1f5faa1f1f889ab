"""Precision, scaling, memory format, compilation: the strategy's business alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runners.support import assert_same, build_trainer, quiet
from vq.core.errors import ConfigError
from vq.strategies.base import BaseStrategy
from vq.strategies.scaler import LossScaler


def trained(folder: Path, iters: int = 4, **strategy: Any) -> Any:
    overrides = {f'.trainer.strategy.{name}': value for name, value in strategy.items()}
    trainer = build_trainer(folder, dict(iters=iters), {**overrides, **quiet()})
    trainer.losses = []
    backward = trainer.strategy.backward
    trainer.strategy.backward = lambda loss: (trainer.losses.append(float(loss)), backward(loss))
    trainer.run()
    trainer.guard.check()
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize(('precision', 'tolerance'), [('bf16', 0.02), ('fp16', 0.01)])
def test_low_precision_follows_fp32(tmp_path: Path, precision: str, tolerance: float) -> None:
    exact = trained(tmp_path / 'fp32')
    low = trained(tmp_path / precision, precision=precision)
    assert low.losses != exact.losses
    assert low.losses == pytest.approx(exact.losses, rel=tolerance)
    assert all(parameter.dtype == torch.float32 for parameter in low.model.parameters())


@pytest.mark.slow
def test_channels_last_changes_the_layout_and_not_the_result(tmp_path: Path) -> None:
    plain = trained(tmp_path / 'plain')
    other = trained(tmp_path / 'nhwc', channels_last=True)
    weight = other.model.tokenizer.encoder.state_dict()
    assert any(
        value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last) and value.shape[1] > 1
        for value in weight.values()
    )
    assert other.losses == pytest.approx(plain.losses, rel=1e-4)


@pytest.mark.slow
def test_compiled_follows_eager(tmp_path: Path) -> None:
    eager = trained(tmp_path / 'eager', iters=2)
    compiled = trained(tmp_path / 'compiled', iters=2, compile='aot_eager')
    assert compiled.losses == pytest.approx(eager.losses, rel=1e-4)
    assert compiled.model.state_dict().keys() == eager.model.state_dict().keys()


@pytest.mark.slow
def test_deterministic_is_set_and_runs_repeat(tmp_path: Path) -> None:
    try:
        first = trained(tmp_path / 'first', deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
        second = trained(tmp_path / 'second', deterministic=True)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same(first.model.state_dict(), second.model.state_dict())


def test_a_missing_cuda_device_is_said() -> None:
    if torch.cuda.is_available():
        pytest.skip('this machine has a CUDA device')
    with pytest.raises(ConfigError, match="'cuda' was asked for"):
        BaseStrategy(device='cuda').start()


class TestLossScaler:
    def optimizer(self) -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        parameter = torch.nn.Parameter(torch.ones(3))
        return parameter, torch.optim.SGD([parameter], lr=0.5, fused=True)

    def step(self, strategy: BaseStrategy, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        strategy.backward(loss)
        strategy.unscale(optimizer)
        strategy.step(optimizer, torch.tensor(True))
        strategy.finish_step()

    def test_a_good_step_is_the_unscaled_one(self) -> None:
        parameter, optimizer = self.optimizer()
        strategy = BaseStrategy(device='cpu', precision='fp16')
        strategy.start()
        self.step(strategy, optimizer, (parameter * torch.tensor([1.0, 2.0, 3.0])).sum())
        assert torch.allclose(parameter, 1 - 0.5 * torch.tensor([1.0, 2.0, 3.0]))
        assert float(strategy.scaler.scale) == 2**16

    def test_an_overflow_skips_the_step_and_halves_the_scale(self) -> None:
        parameter, optimizer = self.optimizer()
        strategy = BaseStrategy(device='cpu', precision='fp16')
        strategy.start()
        self.step(strategy, optimizer, (parameter * 1e38).sum())  # times 2^16 is beyond float32
        assert torch.equal(parameter, torch.ones(3))
        assert float(strategy.scaler.scale) == 2**15

    def test_the_scale_grows_after_two_thousand_good_steps_and_survives_a_restart(self) -> None:
        scaler = LossScaler(torch.device('cpu'), scale=8.0)
        scaler.good_steps.fill_(1999)
        other = LossScaler(torch.device('cpu'))
        other.load_state_dict(scaler.state_dict())
        other.update()
        assert float(other.scale) == 16.0
        assert int(other.good_steps) == 0
