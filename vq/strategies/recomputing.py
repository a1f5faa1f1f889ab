"""Which parts of a task compute their activations again in backward instead of keeping them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from vq.core.errors import ConfigError
from vq.interfaces import Quantizer, Task
from vq.nn.recompute import Recomputed


def recompute_in(task: Task, parts: Mapping[str, nn.Module]) -> None:
    """In all blocks of these parts."""
    for name, module in task.named_modules():
        if isinstance(module, Quantizer) and module.updates_in_forward:
            raise ConfigError(
                f'checkpoint_activations with {name}, which updates its codebook in forward: what forward computes again '
                'must find the codes of the first time',
                'Leave checkpoint_activations out, or take the update out of forward (in_forward=False).',
            )
    for name, part in parts.items():
        blocks = [module for module in part.modules() if isinstance(module, Recomputed)]
        if not blocks:
            raise ConfigError(
                f'checkpoint_activations: {name or "the model"} has nothing that can be computed again',
                'Name a part that has: ConvEncoder and ConvDecoder, as tokenizer.encoder and tokenizer.decoder.',
            )
        for block in blocks:
            block.recompute = True
