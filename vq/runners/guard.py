"""A loss or gradient that is not finite never reaches the parameters, on any rank, and no step needs a host sync for that.

Every term of every step is tested on the device. The first term that is not finite clears a sticky flag, ``ok``. From then
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
    """The flags of one run. All micro-batches of a step have the same terms."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.ok = torch.ones((), dtype=torch.bool, device=strategy.device)
        self._bad_step = torch.zeros((), dtype=torch.int64, device=strategy.device)
        self._names: dict[str, Terms] = {}  # optimizer -> its terms in this step
        self._flags: dict[str, Tensor] = {}  # optimizer -> one bool per term, over the micro-batches of this step
        self._bad_terms: dict[tuple[str, Terms], Tensor] = {}  # which terms, and the gradient, were bad at the first bad step

    def observe(self, optimizer: str, losses: Losses) -> None:
        """Test the terms of one micro-batch."""
        self._names[optimizer] = tuple(losses.values)
        finite = torch.isfinite(torch.stack([value.detach().float() for value in losses.values.values()]))
        self._flags[optimizer] = finite if optimizer not in self._flags else self._flags[optimizer] & finite

    def decide(self, optimizer: str, step: int, gradient_norm: Tensor | None = None) -> Tensor:
        """Reduce flags and gradient norm, of all ranks, into ``ok``, () bool, before an optimizer steps."""
        finite = self._flags.pop(optimizer)
        norm_finite = finite.new_ones(1) if gradient_norm is None else torch.isfinite(gradient_norm).reshape(1)
        flags = torch.cat([finite, norm_finite])
        if collectives.size() > 1:
            flags = collectives.all_reduce(flags.to(torch.uint8), 'min').bool()
        first = self.ok & ~flags.all()  # the first step that is not finite
        key = optimizer, self._names[optimizer]
        known = self._bad_terms.get(key)
        if known is None:  # copied from the host: a constant made on the device would be another graph than a result
            known = torch.zeros(len(flags), dtype=torch.bool).to(flags.device, non_blocking=True)
        self._bad_terms[key] = torch.where(first, ~flags, known)
        self._bad_step = torch.where(first, self.strategy.as_input(step), self._bad_step)
        self.ok = self.ok & flags.all()
        return self.ok

    def check(self) -> None:
        """Read the flag, the only host sync, and raise if it is cleared."""
        self.strategy.before_reading()  # callers of check go on to read other results
        if bool(self.ok):
            return
        bad = {key: flags.tolist() for key, flags in self._bad_terms.items()}
        names = [name for (_, terms), flags in bad.items() for name, flag in zip(terms, flags, strict=False) if flag]
        # a loss that is not finite makes such a gradient: the gradient is named only if every loss was finite
        names = names or [f'the gradient of {optimizer}' for (optimizer, _), flags in bad.items() if flags[-1]]
        raise RunFailure(
            f'{" and ".join(names)} became nan or infinite at step {int(self._bad_step)}; no update was made since',
            'Resume from the last checkpoint with a lower learning rate, gradient clipping, or precision fp32.',
        )
