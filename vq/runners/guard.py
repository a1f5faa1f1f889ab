"""A loss or gradient that is not finite never reaches the parameters, on any rank, and no step waits to find out.

Every term of every step is tested on the device. The first bad one clears a sticky flag, ``ok``; from then on all
updates are masked on the device. At log intervals and before any checkpoint ``check`` reads the flag, once, and
raises with the name of the term and the step. Steps may differ in their terms: some start later, some come lazily.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import RunFailure
from vq.core.records import Losses
from vq.runners.schedules import as_input
from vq.strategies.xla import cut_graph

Terms = tuple[str, ...]


class FiniteGuard:
    """Bookkeeping for one run. All micro-batches of a step have the same terms."""

    def __init__(self, device: torch.device) -> None:
        self.ok = torch.ones((), dtype=torch.bool, device=device)
        self._bad_step = torch.zeros((), dtype=torch.int64, device=device)
        self._names: dict[str, Terms] = {}  # optimizer -> its terms in this step
        self._flags: dict[str, Tensor] = {}  # optimizer -> one bool per term, over the micro-batches of this step
        self._bad_terms: dict[tuple[str, Terms], Tensor] = {}  # which terms, and the gradient, were bad at the first bad step

    def observe(self, optimizer: str, losses: Losses) -> None:
        """Test the terms of one micro-batch."""
        self._names[optimizer] = tuple(losses.values)
        finite = torch.isfinite(torch.stack([value.detach().float() for value in losses.values.values()]))
        self._flags[optimizer] = finite if optimizer not in self._flags else self._flags[optimizer] & finite

    def decide(self, optimizer: str, step: int, gradient_norm: Tensor | None = None) -> Tensor:
        """Join ranks and gradient norm into ``ok`` before an optimizer steps; returns the flag (a device scalar)."""
        finite = self._flags.pop(optimizer)
        norm_finite = finite.new_ones(1) if gradient_norm is None else torch.isfinite(gradient_norm).reshape(1)
        flags = torch.cat([finite, norm_finite])
        if collectives.size() > 1:
            flags = collectives.all_reduce(flags.to(torch.uint8), 'min').bool()
        first = self.ok & ~flags.all()  # still fine before, bad now
        key = optimizer, self._names[optimizer]
        known = self._bad_terms.get(key)
        if known is None:  # from the host: XLA takes it as it takes a result, and compiles one program for both
            known = torch.zeros(len(flags), dtype=torch.bool).to(flags.device, non_blocking=True)
        self._bad_terms[key] = torch.where(first, ~flags, known)
        self._bad_step = torch.where(first, as_input(step, flags.device), self._bad_step)
        self.ok = self.ok & flags.all()
        return self.ok

    def check(self) -> None:
        """Read the flag (the only wait) and raise if it is down."""
        if self.ok.device.type == 'xla':
            cut_graph()  # whoever asks goes on to read: results, and not one program for each on the way to it
        if bool(self.ok):
            return
        bad = {key: flags.tolist() for key, flags in self._bad_terms.items()}
        names = [name for (_, terms), flags in bad.items() for name, flag in zip(terms, flags, strict=False) if flag]
        # a bad loss makes a bad gradient: the gradient is the news only where every loss was fine
        names = names or [f'the gradient of {optimizer}' for (optimizer, _), flags in bad.items() if flags[-1]]
        raise RunFailure(
            f'{" and ".join(names)} became nan or infinite at step {int(self._bad_step)}; no update was made since',
            'Resume from the last checkpoint with a lower learning rate, gradient clipping, or precision fp32.',
        )
