"""Evaluation of a model between training steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from vq.core.random import random_state, restore_random_state


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode and uncompiled (compiled code may skip hooks); random generators are restored afterwards."""
    training, state = model.training, random_state()
    compiled = [(module, module._compiled_call_impl) for module in model.modules() if module._compiled_call_impl is not None]
    for module, _ in compiled:
        module._compiled_call_impl = None
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
        for module in model.modules():
            if hasattr(module, 'reshard'):  # FSDP reshards in backward, and there is none here
                module.reshard()  # type: ignore[operator]
        for module, call in compiled:
            module._compiled_call_impl = call
        restore_random_state(state)
