"""An exponential moving average of the weights, advanced after every optimizer step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Callback, Task
from vq.io.checkpoints import model_state, stands_under
from vq.io.sharded import is_sharded, local, part_of
from vq.registries import VQCallbackRegistry
from vq.runners.protocol import TrainerLike


def averaged_state(model: Task) -> dict[str, Tensor]:
    """The live tensors that are averaged."""
    prefixes = model.training_only_prefixes()
    state = model_state(model, keep_vars=True)
    return {name: value for name, value in state.items() if not stands_under(name, prefixes)}


@VQCallbackRegistry.register_()
class EMACallback(Callback[TrainerLike]):
    """shadow <- d shadow + (1 - d) weights, with d = min(decay, (1 + step) / (10 + step)) if ``warmup``.

    Floating-point parameters and buffers are averaged, everything else is copied. Frozen parts and training-only parts (a
    discriminator) are left out. The average of a sharded parameter is sharded in the same way.
    """

    phase = 'ema'

    CHECK_EVERY = 100  # steps

    def __init__(self, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f'EMA decay is {decay}', 'Give a number from 0 up to, but not including, 1.')
        self.decay, self.warmup = decay, warmup
        self.shadow: dict[str, Tensor] = {}

    def bind(self, runner: TrainerLike) -> None:
        super().bind(runner)
        # the live tensors are found once: a state dict in every step costs more than the averaging
        self._live = averaged_state(runner.model)
        self.shadow = {name: value.detach().clone() for name, value in self._live.items()}
        averaged = [name for name, value in self._live.items() if value.is_floating_point()]
        self._shadows = [local(self.shadow[name]) for name in averaged]
        self._averaged = [self._live[name] for name in averaged]
        self._sharded = any(map(is_sharded, self._averaged))
        self._copied = [name for name in self._live if name not in set(averaged)]

    @torch.no_grad()
    def after_step(self) -> None:
        step = self.runner.step
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        # every rank averages its own shards; FSDP may move a distributed tensor to other memory, so shards are looked up again
        live = list(map(local, self._averaged)) if self._sharded else self._averaged
        rate = self.runner.strategy.as_input(1 - decay)
        torch._foreach_lerp_(self._shadows, live, [rate] * len(live) if isinstance(rate, Tensor) else rate)
        for name in self._copied:
            self.shadow[name].copy_(self._live[name])
        if step % self.CHECK_EVERY == 0 or step == self.runner.iters:
            self._check()

    def _check(self) -> None:
        """Raise if a live tensor is no longer the tensor of the model."""
        for name, value in averaged_state(self.runner.model).items():
            live = self._live[name]
            # FSDP may wrap the same shard in another distributed tensor
            if value is not live and not (is_sharded(value) and local(value).data_ptr() == local(live).data_ptr()):
                raise RuntimeError(f'{name} was replaced by another tensor during training; parts must change theirs in place')

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Exchange weights and average, and exchange them back: both keep every bit. Needs memory for one more tensor."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for live, shadow in zip(map(local, self._averaged), self._shadows, strict=True):
            held = live.clone()
            live.copy_(shadow)
            shadow.copy_(held)

    def load_shadow(self, shadow: Mapping[str, Tensor]) -> None:
        """Continue from the average of a checkpoint, stored as whole tensors."""
        for name, value in shadow.items():
            local(self.shadow[name]).copy_(part_of(value, self.shadow[name]))
