"""Settings of an optimizer step, and an optimizer with its schedule in a run."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer

from vq.core.errors import ConfigError
from vq.interfaces import Schedule, Strategy
from vq.runners.optimizers import learning_rate


@dataclasses.dataclass
class StepSettings:
    """Written in the dict of an optimizer, next to the arguments of its factory: ``dict(type='AdamW', lr=2e-3, clip=1.0)``.

    clip        bound on the norm of its gradients; None: ``strategy.clip``
    schedule    factor on the learning rate over the run
    scale_lr    how the learning rate of the config, given for ``base_batch`` samples per step, is scaled to the actual
                number of samples: not at all, linearly (MAE's ``blr``) or by the square root
    """

    clip: float | None = None
    schedule: Schedule | None = None
    scale_lr: Literal['none', 'linear', 'sqrt'] = 'none'
    base_batch: int = 256

    def __post_init__(self) -> None:
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f'clip is {self.clip}', 'Give a norm above 0, or None for that of the strategy.')
        if self.base_batch < 1:
            raise ConfigError(f'base_batch is {self.base_batch}', 'Give the number of samples that lr is meant for.')


class Stepped:
    """An optimizer of a run: its parameters, and the learning rates of the config, which its schedule multiplies."""

    def __init__(self, optimizer: Optimizer, settings: StepSettings, iters: int, batch_size: int, clip: float | None) -> None:
        self.optimizer, self.schedule = optimizer, settings.schedule
        self.clip = settings.clip if settings.clip is not None else clip
        self.parameters: list[Tensor] = [parameter for group in optimizer.param_groups for parameter in group['params']]
        ratio = batch_size / settings.base_batch
        self.scale = {'none': 1.0, 'linear': ratio, 'sqrt': math.sqrt(ratio)}[settings.scale_lr]
        self.base = [group['lr'] for group in optimizer.param_groups]
        if self.schedule is not None:
            self.schedule.bind(iters)

    def set_rates(self, step: int, strategy: Strategy) -> None:
        """Set the learning rates of step 1, 2, ..."""
        factor = self.scale * (self.schedule(step) if self.schedule else 1.0)
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group['lr'] = learning_rate(base * factor, strategy)
