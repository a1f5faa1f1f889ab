"""Norms and histograms of parameters and of their gradients."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.interfaces import Callback
from vq.io.sharded import local
from vq.registries import VQCallbackRegistry
from vq.runners.histograms import Histogram, Measured, measure
from vq.runners.protocol import TrainerLike

KINDS = ('gradient', 'parameter')


@VQCallbackRegistry.register_()
class WatchCallback(Callback[TrainerLike]):
    """Every ``interval`` steps and at the end: norms of parameters and gradients into the journal, histograms to TensorBoard
    and wandb.

    Gradients are those of the whole step, unscaled and not clipped. Parameters are those at which they were taken, before the
    step. The line of the journal has the kind 'watch'; ``not_finite`` counts values that are infinite or NaN, which norms and
    histograms leave out. Between these steps nothing is computed, and the host never waits for the device.

    of    both, or 'gradients' or 'parameters' alone
    bins  of a histogram, between the smallest and the largest value
    """

    phase = 'log'

    def __init__(self, interval: int = 1000, bins: int = 64, of: Literal['both', 'gradients', 'parameters'] = 'both') -> None:
        if interval < 1 or bins < 1 or of not in ('both', 'gradients', 'parameters'):
            raise ConfigError(
                f'WatchCallback has interval {interval}, bins {bins}, of {of!r}',
                "Give 1 or more of the first two, and 'both', 'gradients' or 'parameters'.",
            )
        self.interval, self.bins = interval, bins
        self.kinds: tuple[str, ...] = KINDS if of == 'both' else (of.removesuffix('s'),)
        self.pending: list[Measured] = []  # of each optimizer in this step

    def bind(self, runner: TrainerLike) -> None:
        super().bind(runner)
        names = {id(parameter): name for name, parameter in runner.model.named_parameters()}
        origin = runner.strategy.origin
        # optimizer -> its parameters, or this rank's parts of them, by the names of the model
        self.named = {
            name: {
                names[id(origin(parameter))]: parameter for group in optimizer.param_groups for parameter in group['params']
            }
            for name, optimizer in runner.optimizers.items()
        }
        # all ranks have the same answer, because all have the same names in parts
        self.joined = any(origin(value) is not value for values in self.named.values() for value in values.values())

    def optimize(self, name: str) -> None:
        """Gradients are complete: they are let go after the step."""
        step = self.runner.step + 1
        if step % self.interval and step != self.runner.iters:
            return
        if not (self.joined or collectives.is_main()):  # every rank has the same tensors
            return
        parts = {
            f'{kind}/{whole}': self._part(kind, parameter)
            for whole, parameter in self.named[name].items()
            for kind in self.kinds
        }
        if parts:
            self.pending.append(measure(parts, self.bins, self.joined))

    def _part(self, kind: str, parameter: Tensor) -> Tensor:
        """What this rank has to count: its part of a tensor in parts; the main rank a whole one, other ranks nothing of it."""
        value = parameter if kind == 'parameter' else parameter.grad
        if value is None or (self.runner.strategy.origin(parameter) is parameter and not collectives.is_main()):
            return torch.empty(0, device=parameter.device)
        return local(value.detach())

    def after_step(self) -> None:
        if not self.pending:
            return
        found: dict[str, Histogram] = {}
        for measured in self.pending:
            found |= measured.read()
        self.pending.clear()
        values: dict[str, Any] = {
            f'{kind}_norm': {name.removeprefix(f'{kind}/'): each.norm for name, each in found.items() if name.startswith(kind)}
            for kind in self.kinds
        }
        if bad := {name: each.not_finite for name, each in found.items() if each.not_finite}:
            values['not_finite'] = bad
        self.runner.journal.write(self.runner.step, 'watch', values)
        self.runner.journal.histograms(self.runner.step, found)
