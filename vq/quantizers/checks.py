"""Checks of what quantizers without a table of codes get: a table would refuse it, and arithmetic would not."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import ConfigError


def check_width(features: Tensor, channels: int, name: str) -> None:
    """Refuse features (..., C') with C' other than ``channels``: one channel, for example, would be broadcast to all."""
    if features.ndim == 0 or features.shape[-1] != channels:
        raise ConfigError(
            f'features have the shape {tuple(features.shape)}, and {name} quantizes {channels} channels',
            'The last axis must have the channels.',
        )


def check_tokens(tokens: Tensor, codes: int, name: str) -> None:
    """Refuse tokens (...) outside of 0 to ``codes`` - 1, whose digits would be those of another token.

    On the CPU only, where files are read: on other devices the host would have to wait for the values.
    """
    if tokens.device.type != 'cpu' or torch.compiler.is_compiling() or not tokens.numel():
        return
    least, most = (int(value) for value in tokens.aminmax())
    if least < 0 or most >= codes:
        raise ConfigError(
            f'tokens are from {least} to {most}, and {name} has the tokens 0 to {codes - 1}',
            'They are of another quantizer, or damaged.',
        )
