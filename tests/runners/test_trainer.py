"""The loop: lengths, accumulation, ranks, averages, schedules, callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import GlooPool
from tests.runners.support import assert_same, build_trainer, quiet
from vq.core.errors import ConfigError


class Gradients:
    """Keeps the gradients and codebook of every step of a run."""

    def __init__(self, trainer: Any) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []
        self.codebooks: list[torch.Tensor] = []
        self.trainer = trainer
        step = trainer.strategy.step
        update = trainer.model.update
        trainer.strategy.step = lambda optimizer, ok: (self.keep(), step(optimizer, ok))
        trainer.model.update = lambda ok: (update(ok), self.codebooks.append(self.codebook()))

    def keep(self) -> None:
        self.steps.append(
            {
                name: parameter.grad.clone()
                for name, parameter in self.trainer.model.named_parameters()
                if parameter.grad is not None
            }
        )

    def codebook(self) -> torch.Tensor:
        return self.trainer.model.tokenizer.quantizer.lookup(torch.arange(32)).clone()


def run(folder: str, iters: int = 3, **options: Any) -> tuple[list[dict[str, torch.Tensor]], list[torch.Tensor]]:
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trainer = build_trainer(Path(folder) / f'{rank}{options}', dict(iters=iters, **options), quiet())
    kept = Gradients(trainer)
    trainer.run()
    torch.set_num_threads(threads)
    return kept.steps, kept.codebooks


def assert_close(one: Any, other: Any, tolerance: float) -> None:
    for step, (left, right) in enumerate(zip(one, other, strict=True)):
        for name in left:
            torch.testing.assert_close(
                left[name], right[name], rtol=tolerance, atol=tolerance, msg=lambda text, at=(step, name): f'{at} {text}'
            )


@pytest.mark.slow
def test_two_micro_batches_are_one_batch(tmp_path: Path) -> None:
    whole, codes = run(str(tmp_path), batch_size=8)
    parts, same_codes = run(str(tmp_path), batch_size=4, accumulate=2)
    assert_close(whole[:1], parts[:1], 1e-6)
    assert_close(whole, parts, 1e-5)
    torch.testing.assert_close(codes, same_codes, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_two_ranks_are_one_with_twice_the_batch(tmp_path: Path, gloo_pool: GlooPool) -> None:
    whole, _ = run(str(tmp_path), batch_size=8)
    (first, codes), (second, same_codes) = gloo_pool.run(run_ddp, str(tmp_path))
    assert_close(whole[:1], first[:1], 1e-6)
    for one, other in zip(first, second, strict=True):
        assert_same(one, other)
    assert len(codes) == 20
    assert_same(codes, same_codes)


def run_ddp(folder: str) -> Any:
    return run(folder, iters=20, batch_size=4, strategy='ddp')


def test_gradients_of_the_second_step_follow_the_first(tmp_path: Path) -> None:
    """The first step of two runs is equal, so later differences would be leaked state; no state leaks between steps."""
    once, _ = run(str(tmp_path), iters=2)
    again, _ = run(str(tmp_path / 'again'), iters=2)
    assert_same(once, again)


@pytest.mark.parametrize(
    ('length', 'steps'), [(dict(iters=None, epochs=0.03), 6), (dict(iters=None, samples=41), 6), (dict(iters=5), 5)]
)
def test_lengths(tmp_path: Path, length: dict[str, Any], steps: int) -> None:
    overrides = {f'.trainer.{name}': value for name, value in length.items()}  # 1,437 digits, batches of 8
    trainer = build_trainer(tmp_path, None, {**overrides, **quiet()})
    trainer.run()
    assert trainer.step == steps
    assert trainer.samples_seen == 8 * steps


def test_only_one_length(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='exactly one of iters, epochs and samples'):
        build_trainer(tmp_path, None, {'.trainer.epochs': 3})


def test_optimizers_are_named_as_roots(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"roots \['tokenizer'\]"):
        build_trainer(tmp_path, None, {'.trainer.optimizers': dict(generator=dict(type='SGD'))})


def test_moving_average_is_the_closed_form(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, dict(iters=3), quiet(dict(type='EMACallback', decay=0.75, warmup=False)))
    average = trainer.callbacks['ema']
    seen: list[torch.Tensor] = []
    weight = next(parameter for name, parameter in trainer.model.named_parameters() if name.endswith('weight'))
    name = next(name for name, parameter in trainer.model.named_parameters() if parameter is weight)
    after = average.after_step
    average.after_step = lambda: (seen.append(weight.detach().clone()), after())
    start = weight.detach().clone()
    trainer.run()
    expected = 0.75**3 * start + 0.25 * (0.75**2 * seen[0] + 0.75 * seen[1] + seen[2])
    torch.testing.assert_close(average.shadow[name], expected)


def test_learning_rates_scale_with_the_batch_and_follow_the_schedule(tmp_path: Path) -> None:
    settings = quiet(lr=1.0, scale_lr='linear', base_batch=16, schedule=dict(type='LinearSchedule', final=0.0))
    trainer = build_trainer(tmp_path, dict(iters=4, accumulate=2), settings)
    rates = []
    step = trainer.strategy.step
    trainer.strategy.step = lambda optimizer, ok: (rates.append(optimizer.param_groups[0]['lr']), step(optimizer, ok))
    trainer.run()
    assert rates == pytest.approx([0.75, 0.5, 0.25, 0.0])  # 16 samples a step: the base itself


def test_clipping_bounds_the_norm_of_the_gradient(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, dict(iters=1), quiet(clip=0.01))
    kept = Gradients(trainer)
    trainer.run()
    norm = torch.sqrt(sum(gradient.square().sum() for gradient in kept.steps[0].values()))
    assert float(norm) == pytest.approx(0.01, rel=1e-3)
    assert float(trainer.gradient_norms['tokenizer']) > 0.01


def test_a_quantizer_that_updates_in_forward_refuses_accumulation(tmp_path: Path) -> None:
    update = dict(type='CVQUpdate', in_forward=True)
    with pytest.raises(ConfigError, match='updates its codebook in forward'):
        build_trainer(tmp_path, dict(accumulate=2), {'.trainer.model.tokenizer.quantizer.update': update}).run()
