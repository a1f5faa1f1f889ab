"""Dynamic loss scaling for fp16, on the device from end to end.

torch's GradScaler reads its flag on the host unless the optimizer is fused; this one hands the flag to the guarded
step, which every optimizer takes. Same kernels, same rule: halve on overflow, double after 2,000 good steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

GROWTH, BACKOFF, INTERVAL = 2.0, 0.5, 2000


class LossScaler:
    """One scale for all optimizers; a step in which any of them overflowed lowers it."""

    def __init__(self, device: torch.device, scale: float = 2.0**16) -> None:
        self.scale = torch.full((), scale, device=device)
        self.good_steps = torch.zeros((), dtype=torch.int32, device=device)
        self._found = torch.zeros((), device=device)  # over the optimizers of this step
        self._last: dict[int, Tensor] = {}

    def scaled(self, loss: Tensor) -> Tensor:
        return loss * self.scale

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale and remember whether one of them was infinite."""
        gradients = [p.grad for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
        found = torch.zeros((), device=self.scale.device)
        if gradients:
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, self.scale.reciprocal())
        self._last[id(optimizer)] = found
        self._found = torch.maximum(self._found, found)

    def fine(self, optimizer: Optimizer) -> Tensor:
        """A bool on the device: this optimizer's gradients are finite."""
        return self._last.pop(id(optimizer)) == 0

    def update(self) -> None:
        """Once per step, after all optimizers."""
        torch._amp_update_scale_(self.scale, self.good_steps, self._found, GROWTH, BACKOFF, INTERVAL)
        self._found = torch.zeros_like(self._found)

    def state_dict(self) -> dict[str, Any]:
        return {'scale': self.scale.clone(), 'good_steps': self.good_steps.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scale.copy_(state['scale'])
        self.good_steps.copy_(state['good_steps'])
