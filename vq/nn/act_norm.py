"""Activation norm: a scale and a shift per channel that start from the first batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vq.core import collectives
from vq.core.errors import UserError
from vq.nn.batch_norm import channel_moments, join_moments
from vq.nn.precision import no_autocast


class ActNorm(nn.Module):
    """y = scale (x + loc) over (B, C, H, W); the first training batch sets loc = -mean and scale = 1 / (std + 1e-6).

    Kingma and Dhariwal (2018). Mean and unbiased deviation are per channel and over all ranks, so ranks start bitwise equal.
    Before the first training batch, and after a first batch with nan or inf, the layer is the identity.
    """

    initialized: Tensor  # () uint8, as in published checkpoints; forward reads ``_ready``, its copy on the host

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.empty(1, channels, 1, 1))
        self.scale = nn.Parameter(torch.empty(1, channels, 1, 1))
        self.register_buffer('initialized', torch.empty((), dtype=torch.uint8))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.loc.zero_()
            self.scale.fill_(1)
            self.initialized.zero_()
        self._ready = False

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self._ready:
            self._start(x)
        return (self.scale * (x + self.loc)).to(x.dtype)

    @torch.no_grad()
    def _start(self, x: Tensor) -> None:
        if x.numel() == x.shape[1] and collectives.size() == 1:
            raise UserError(
                f'ActNorm cannot be initialised from one value per channel: the batch has the shape {tuple(x.shape)}',
                'Use larger batches or images.',
            )
        with no_autocast(x.device):
            mean, variance, count = join_moments(*channel_moments(x), x.numel() // x.shape[1])
            deviation = torch.sqrt(variance * (count / (count - 1)))
        fine = (torch.isfinite(mean) & torch.isfinite(deviation)).all()
        shape = self.loc.shape
        self.loc.copy_(torch.where(fine, -mean, 0.0).view(shape))
        self.scale.copy_(torch.where(fine, 1 / (deviation + 1e-6), 1.0).view(shape))
        self.initialized.fill_(1)
        self._ready = True

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *others)  # type: ignore[no-untyped-call]
        loaded = state_dict.get(f'{prefix}initialized')
        if loaded is not None and not loaded.is_meta:
            self._ready = bool(loaded)  # the only host sync

    def extra_repr(self) -> str:
        return str(self.loc.shape[1])
