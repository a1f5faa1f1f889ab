"""What every codebook update does."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import CodebookUpdate
from vq.quantizers.search import Metric


class Update(CodebookUpdate):
    """``observe`` in every training forward, ``update`` once per optimizer step; both only on the device.

    ``by_gradient`` says whether gradients move the codes too. ``in_forward`` makes the quantizer call ``update`` inside
    its forward and look codes up afterwards, as some papers' code does.
    """

    by_gradient: bool = True

    def bind(self, codebook: Tensor, metric: Metric) -> None:
        """Make the state for this codebook (K, C)."""
        raise NotImplementedError

    def reset(self, codebook: Tensor) -> None:
        """Back to the initial state, for a codebook that was filled anew."""
        raise NotImplementedError

    def observe(self, features: Tensor, tokens: Tensor, codebook: Tensor, images: int) -> None:
        """Take in features (N, C) of so many images, fp32 and without gradient, and their tokens (N,). No collective."""
        raise NotImplementedError

    def restarted(self, codebook: Tensor, rows: Tensor) -> None:
        """Somebody else has set the codes of ``rows`` (K,) bool anew: what was known of them is no longer true."""
        raise NotImplementedError

    def update(self, codebook: Tensor, ok: Tensor | None) -> None:
        """Move the codes by what all ranks observed since the last call, unless ``ok`` is false; forget it either way."""
        raise NotImplementedError


def accept(state: Tensor, new: Tensor, ok: Tensor) -> None:
    """Write ``new`` into ``state`` where ``ok`` (a bool on the device) holds: no branch, so nobody waits."""
    state.copy_(torch.where(ok, new, state))


def check_decay(name: str, decay: float) -> float:
    if not 0 <= decay < 1:
        raise ConfigError(f'{name} has decay {decay}', 'Give a decay from 0 up to, not including, 1; 0.99 is usual.')
    return decay
