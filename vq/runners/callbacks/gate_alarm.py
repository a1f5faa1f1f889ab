"""Logs how far the adapters of a network have opened, and warns of those that stay closed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vq.core import collectives
from vq.core.errors import ConfigError, listing
from vq.interfaces import Callback
from vq.interfaces.unet import UNetBlock
from vq.registries import VQCallbackRegistry
from vq.runners.protocol import TrainerLike

logger = logging.getLogger('vq')

REMEDIES = (
    'Nothing of the condition passes such a gate. Check that its adapter is trained and that batches have layouts; raise the '
    'learning rate, or std of the conditioner.'
)


def gates_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The name of each block with a gate, and the gate."""
    for name, module in model.named_modules():
        if isinstance(module, UNetBlock) and (gate := module.zero_gate) is not None:
            yield name, gate


@VQCallbackRegistry.register_()
class GateAlarmCallback(Callback[TrainerLike]):
    """Every ``interval`` steps, a line ``gates`` in the log: the size of each gate, by the name of its adapter.

    A gate is the last matrix of an adapter, which starts at zero: ``RegionAttention.proj``. Its size is the root mean square
    of its numbers times sqrt(n) of its n columns: about 0.6 where a layer starts in the usual way. From step ``after`` on,
    a warning names the gates whose size is below ``threshold``.
    """

    phase = 'alarm'

    def __init__(self, interval: int = 500, threshold: float = 0.01, after: int = 500) -> None:
        if interval < 1 or threshold < 0 or after < 0:
            raise ConfigError(
                f'GateAlarmCallback has interval {interval}, threshold {threshold} and after {after}',
                'Give 1 step or more as the interval, and no number below zero.',
            )
        self.interval, self.threshold, self.after = interval, threshold, after

    def bind(self, runner: Any) -> None:
        super().bind(runner)
        if not any(True for _ in gates_of(runner.model)):
            raise ConfigError(
                f'{type(runner.model).__name__} has no adapter with a gate', 'Leave GateAlarmCallback out of the callbacks.'
            )

    @torch.no_grad()
    def inspect(self) -> None:
        runner = self.runner
        if runner.step % self.interval:
            return
        with runner.strategy.whole():
            names, gates = zip(*gates_of(runner.model), strict=True)
            squares = [gate.float().square().mean() * gate.shape[1] for gate in gates]
            sizes = dict(zip(names, torch.stack(squares).sqrt().tolist(), strict=True))
        runner.journal.write(runner.step, 'gates', {name: round(size, 6) for name, size in sizes.items()})
        closed = [name for name, size in sizes.items() if not size >= self.threshold]  # also nan
        if closed and runner.step >= self.after and collectives.is_main():
            logger.warning(
                'gate alarm at step %d: %d of %d gates are below %g of their usual size: %s. %s',
                *(runner.step, len(closed), len(sizes), self.threshold, listing(closed), REMEDIES),
            )
