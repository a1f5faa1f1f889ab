"""The interface of codebook updates."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import CodebookUpdate
from vq.quantizers.search import Metric


class Update(CodebookUpdate):
    """``observe`` is called in every training forward, ``update`` once per optimizer step. Neither syncs with the host.

    ``by_gradient`` says whether gradients move the codes too. With ``in_forward`` the quantizer calls ``update`` inside its
    forward and looks the codes up afterwards, as the code of some papers does.
    """

    by_gradient: bool = True

    def bind(self, codebook: Tensor, metric: Metric) -> None:
        """Make the state for this codebook (K, C)."""
        raise NotImplementedError

    def reset(self, codebook: Tensor) -> None:
        """Back to the initial state, after the codebook was re-initialised."""
        raise NotImplementedError

    def observe(self, features: Tensor, tokens: Tensor, codebook: Tensor, images: int) -> None:
        """Accumulate detached fp32 features (N, C) of ``images`` images, and their tokens (N,). No collective."""
        raise NotImplementedError

    def restarted(self, codebook: Tensor, rows: Tensor) -> None:
        """Reset the statistics of the codes ``rows`` (K,) bool, after other code gave them new values."""
        raise NotImplementedError

    def update(self, codebook: Tensor, ok: Tensor | None) -> None:
        """Move the codes by the observations of all ranks since the last call, unless ``ok`` is false. Always clear them."""
        raise NotImplementedError


def accept(state: Tensor, new: Tensor, ok: Tensor) -> None:
    """Write ``new`` into ``state`` where ``ok`` (a bool on the device) is true: without a branch, so without a host sync."""
    state.copy_(torch.where(ok, new, state))


def check_decay(name: str, decay: float) -> float:
    if not 0 <= decay < 1:
        raise ConfigError(f'{name} has decay {decay}', 'Give a decay from 0 up to, not including, 1; 0.99 is usual.')
    return decay
