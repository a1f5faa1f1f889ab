"""The straight path of flow matching."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Level, Path
from vq.registries import VQPathRegistry
from vq.sampling.spacing import falling_times


@VQPathRegistry.register_()
class FlowPath(Path):
    """alpha = 1 - t,  sigma = t  (rectified flow; Lipman et al. 2023; Liu et al. 2023).

    ``shift`` s moves times towards noise,  t' = s t / (1 + (s - 1) t), for latents of many numbers (Esser et al. 2024; RAE
    takes s = sqrt(numbers of a latent / 4096)): those that training draws by its law, and those of samplers.
    """

    def __init__(self, shift: float = 1.0) -> None:
        if not shift > 0:
            raise ConfigError(f'shift is {shift}', 'Give a number above 0; 1 does not shift.')
        self.shift = float(shift)

    def shifted(self, t: Tensor) -> Tensor:
        return self.shift * t / (1 + (self.shift - 1) * t)

    def level(self, t: Tensor) -> Level:
        t = t.to(torch.promote_types(t.dtype, torch.float32))
        one = torch.ones_like(t)
        return Level(1 - t, t, -one, one)

    def level_at(self, t: float) -> Level:
        return Level(1.0 - t, float(t), -1.0, 1.0)

    def times(self, steps: int, spacing: str = 'uniform') -> list[float]:
        return [self.shift * t / (1 + (self.shift - 1) * t) for t in falling_times(steps, spacing)]
