"""An exponential moving average of the weights, advanced after every optimizer step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Callback
from vq.io.checkpoints import model_state
from vq.registries import VQCallbackRegistry


@VQCallbackRegistry.register_()
class EMACallback(Callback):
    """shadow <- d shadow + (1 - d) weights, with d = min(decay, (1 + step) / (10 + step)) if ``warmup``.

    Floating-point parameters and buffers are averaged, everything else is copied. Frozen parts are left out.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f'EMA decay is {decay}', 'Give a number from 0 up to, but not including, 1.')
        self.decay, self.warmup = decay, warmup
        self.shadow: dict[str, Tensor] = {}

    def bind(self, runner: Any) -> None:
        super().bind(runner)
        self.shadow = {name: value.detach().clone() for name, value in self._weights().items()}

    def _weights(self) -> dict[str, Tensor]:
        return model_state(self.runner.model)

    @torch.no_grad()
    def after_step(self) -> None:
        step = self.runner.step
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        weights = self._weights()
        averaged = [name for name, value in weights.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.shadow[name] for name in averaged], [weights[name] for name in averaged], 1 - decay)
        for name in weights.keys() - set(averaged):
            self.shadow[name].copy_(weights[name])

    def load_shadow(self, shadow: Mapping[str, Tensor]) -> None:
        """Continue from a checkpoint's average."""
        for name, value in shadow.items():
            self.shadow[name].copy_(value)
