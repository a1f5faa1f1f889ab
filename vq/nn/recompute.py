"""Activation checkpointing: blocks that drop their activations and recompute them in backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vq.nn.second_order import contexts, is_second_order


class Recomputed(nn.Module):
    """A block that saves only its inputs for backward if ``recompute`` is on, in training only.

    ``compute`` has any signature: DiT blocks take a condition beside x, others give several tensors.

    A strategy turns it on (``checkpoint_activations``). The same operations run twice on the same numbers, so gradients are
    bitwise equal; ``random`` blocks (dropout) restore the state of the random generator first. ``compute`` must have no side
    effects: a buffer that it updates would be updated twice.
    """

    recompute: bool = False
    random: bool = False

    def compute(self, *inputs: Any, **options: Any) -> Any:
        raise NotImplementedError

    def forward(self, *inputs: Any, **options: Any) -> Any:
        if self.recompute and self.training and torch.is_grad_enabled():
            how = dict(options, context_fn=contexts) if is_second_order() else options
            return checkpoint(self.compute, *inputs, use_reentrant=False, preserve_rng_state=self.random, **how)
        return self.compute(*inputs, **options)
