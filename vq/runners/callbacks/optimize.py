"""When the gradients of an optimizer are complete: unscale, measure, clip, set the learning rate, step."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

from vq.core.errors import ConfigError
from vq.interfaces import Callback, Schedule
from vq.registries import VQCallbackRegistry
from vq.runners.optimizers import learning_rate
from vq.strategies.stepping import clip_by_norm


@VQCallbackRegistry.register_()
class OptimizeCallback(Callback):
    """Steps ``optimizer`` (all of them if None).

    clip        bound on its gradient norm; None takes the strategy's
    schedule    factor on its learning rate over the run
    scale_lr    learning rates in the config are for ``base_batch`` samples per step and are scaled to the real number,
                linearly (MAE's ``blr``) or by the square root
    """

    def __init__(
        self,
        optimizer: str | None = None,
        clip: float | None = None,
        schedule: Schedule | None = None,
        scale_lr: Literal['none', 'linear', 'sqrt'] = 'none',
        base_batch: int = 256,
    ) -> None:
        self.optimizer, self.clip, self.schedule, self.scale_lr, self.base_batch = (
            optimizer,
            clip,
            schedule,
            scale_lr,
            base_batch,
        )

    def bind(self, runner: Any) -> None:
        super().bind(runner)
        if self.optimizer is not None and self.optimizer not in runner.optimizers:
            raise ConfigError(
                f"OptimizeCallback names the optimizer '{self.optimizer}'; there are {sorted(runner.optimizers)}",
                'Name one of these, or None for all.',
            )
        self.names = [self.optimizer] if self.optimizer else [*runner.optimizers]
        if self.schedule is not None:
            self.schedule.bind(runner.iters)
        ratio = runner.batch_size / self.base_batch
        self.scale = {'none': 1.0, 'linear': ratio, 'sqrt': math.sqrt(ratio)}[self.scale_lr]
        self.base = {name: [group['lr'] for group in runner.optimizers[name].param_groups] for name in self.names}
        self.parameters = {
            name: [parameter for group in runner.optimizers[name].param_groups for parameter in group['params']]
            for name in self.names
        }

    def before_step(self) -> None:
        factor = self.scale * (self.schedule(self.runner.step + 1) if self.schedule else 1.0)
        for name in self.names:
            for group, base in zip(self.runner.optimizers[name].param_groups, self.base[name], strict=True):
                group['lr'] = learning_rate(base * factor, self.runner.strategy.device)

    @torch.no_grad()
    def optimize(self, name: str) -> None:
        if name not in self.names:
            return
        runner, parameters = self.runner, self.parameters[name]
        runner.strategy.unscale(runner.optimizers[name])
        norm = runner.strategy.gradient_norm(parameters)
        most = self.clip if self.clip is not None else runner.strategy.clip
        if most is not None:
            clip_by_norm(parameters, norm, most)
        runner.gradient_norms[name] = norm
        runner.step_optimizer(name, norm)
