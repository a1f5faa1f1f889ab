"""Activation checkpointing: blocks that forget what they computed, and compute it again when backward asks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputed(nn.Module):
    """A block x -> ``compute(x)`` that keeps nothing but x for backward while ``recompute`` is on, in training alone.

    A strategy turns it on (``checkpoint_activations``). The same operations run twice on the same numbers, so gradients are
    the same to the last bit; ``random`` blocks (dropout) put the state of the generator back first. ``compute`` must leave
    no trace beside its result: a buffer that it moves would be moved twice.
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
