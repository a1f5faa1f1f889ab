"""A loss or gradient that is not finite never reaches the parameters, on any rank, and no step needs a host sync for that.

Every term of every step is tested on the device. The first that is not finite clears a sticky flag, ``ok``. From then
on all updates are masked on the device. At log intervals and before any checkpoint ``check`` reads the flag once, and
raises with the name of the term and the step. The terms may differ from step to step: an adversarial loss starts later.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import RunFailure
from vq.core.records import Losses
from vq.interfaces import Strategy

Terms = tuple[str, ...]


class FiniteGuard:
    """The flags of one run. All micro-batches of a step have the same terms.

    After a long step, each of these small operations takes 10 to 20 microseconds on a CPU, so they are few.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.ok = torch.ones((), dtype=torch.bool, device=strategy.device)
        self._step = torch.zeros((), dtype=torch.int64, device=strategy.device)  # the last that began while all was finite
        self._names: dict[str, Terms] = {}  # optimizer -> its terms in this step
        self._sums: dict[str, Tensor] = {}  # optimizer -> its terms, over the micro-batches of this step
        self._finite: dict[tuple[str, Terms], Tensor] = {}  # whether each term, and the gradient, was finite at that step

    def observe(self, optimizer: str, losses: Losses) -> None:
        """Note the terms of one micro-batch. No sum makes up for a value that is not finite."""
        self._names[optimizer] = tuple(losses.values)
        with torch.no_grad():  # without weights: one that is adapted to a bad term would make another term bad
            found, sums = torch.stack([*losses.values.values()]), self._sums.get(optimizer)
            self._sums[optimizer] = found.float() if sums is None else sums + found

    def decide(self, optimizer: str, step: int, gradient_norm: Tensor | None = None) -> Tensor:
        """Reduce terms and gradient norm, of all ranks, into ``ok``, () bool, before an optimizer steps."""
        names, values = self._names[optimizer], self._sums.pop(optimizer)
        if gradient_norm is not None:
            values = torch.cat([values, gradient_norm.float().reshape(1)])
        finite = (values - values) == 0  # of inf and nan it is nan. torch.isfinite takes four operations
        if collectives.size() > 1:
            finite = collectives.all_reduce(finite.to(torch.uint8), 'min').bool()
        key = optimizer, names
        known = self._finite.get(key)
        if known is None:  # copied from the host: a constant made on the device would be another graph than a result
            known = torch.ones(len(finite), dtype=torch.bool).to(finite.device, non_blocking=True)
        self._finite[key] = torch.where(self.ok, finite, known)
        self._step = torch.where(self.ok, self.strategy.as_input(step), self._step)
        self.ok = self.ok & finite.all()
        return self.ok

    def check(self) -> None:
        """Read the flag, the only host sync, and raise if it is cleared."""
        self.strategy.before_reading()  # callers of check go on to read other results
        if bool(self.ok):
            return
        finite = {key: flags.tolist() for key, flags in self._finite.items()}
        names = [name for (_, terms), flags in finite.items() for name, flag in zip(terms, flags, strict=False) if not flag]
        # a loss that is not finite makes such a gradient: the gradient is named only if every loss was finite
        names = names or [f'the gradient of {optimizer}' for (optimizer, _), flags in finite.items() if not all(flags)]
        raise RunFailure(
            f'{" and ".join(names)} became nan or infinite at step {int(self._step)}; no update was made since',
            'Resume from the last checkpoint with a lower learning rate, gradient clipping, or precision fp32.',
        )
