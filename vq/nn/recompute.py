"""Activation checkpointing: blocks that drop their activations and recompute them in backward."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputed(nn.Module):
    """A block x -> ``compute(x)`` that saves only x for backward if ``recompute`` is on, in training only.

    A strategy turns it on (``checkpoint_activations``). The same operations run twice on the same numbers, so gradients are
    bitwise equal; ``random`` blocks (dropout) restore the state of the random generator first. ``compute`` must have no side
    effects: a buffer that it updates would be updated twice.
    """

    recompute: bool = False
    random: bool = False

    def compute(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if self.recompute and self.training and torch.is_grad_enabled():
            y: Tensor = checkpoint(self.compute, x, use_reentrant=False, preserve_rng_state=self.random)
            return y
        return self.compute(x)
