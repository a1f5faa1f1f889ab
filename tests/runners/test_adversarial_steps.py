"""An adversarial run, step by step: whose gradients are there when, and the moving average before the discriminator starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.runners.gan import write_gan_config
from vq.assembly.compose import checked, compose
from vq.core.records import Losses
from vq.interfaces import Callback
from vq.registries import VQRunnerRegistry
from vq.runners.callbacks.ema import averaged_state
from vq.runners.context import RunContext

pytestmark = pytest.mark.slow
STEPS, START = 5, 2


def without(module: nn.Module) -> bool:
    return all(parameter.grad is None for parameter in module.parameters())


class Watch(Callback[Any]):
    """Which module has gradients when losses are computed and when they are complete; and an average by its formula."""

    def bind(self, runner: Any) -> None:
        super().bind(runner)
        self.seen: list[tuple[int, str, str, bool, bool]] = []
        self.average = {name: value.detach().clone() for name, value in averaged_state(runner.model).items()}
        self.compared = 0

    def note(self, when: str, name: str) -> None:
        model = self.runner.model
        self.seen.append((self.runner.step + 1, when, name, without(model.tokenizer), without(model.discriminator)))

    def after_losses(self, name: str, losses: Losses) -> None:
        self.note('losses', name)

    def optimize(self, name: str) -> None:
        self.note('complete', name)

    @torch.no_grad()
    def inspect(self) -> None:
        step, shadow = self.runner.step, self.runner.callbacks['ema'].shadow
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in averaged_state(self.runner.model).items():
            mean: Tensor = decay * self.average[name] + (1 - decay) * value if value.is_floating_point() else value
            self.average[name] = mean.clone()
            torch.testing.assert_close(shadow[name], mean, msg=f'{name} at step {step}')
        self.compared += 1


def test_gradients_and_the_average_of_every_step(tmp_path: Path) -> None:
    """A step of the tokenizer leaves no gradients in the discriminator, whose next step starts without any; and the other way
    round. The average advances in every step, also before the discriminator starts."""
    write_gan_config(tmp_path)
    config = compose(str(tmp_path / 'gan.py'), dict(iters=STEPS, start=START, penalties={}), {}, tiny=False)
    config.trainer.callbacks = dict(ema=dict(type='EMACallback', decay=0.9))
    trainer: Any = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')
    trainer.callbacks['watch'] = watch = Watch()
    trainer.bind(RunContext('gan', tmp_path / 'run', seed=7))
    trainer.run()
    expected = []
    for step in range(1, STEPS + 1):
        expected += [(step, 'losses', 'tokenizer', True, True), (step, 'complete', 'tokenizer', False, True)]
        if step > START:
            expected += [(step, 'losses', 'discriminator', True, True), (step, 'complete', 'discriminator', True, False)]
    assert watch.seen == expected
    assert watch.compared == STEPS
    assert without(trainer.model)
