"""Networks that estimate what noise was added to a latent."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vq.core.records import Prediction, PredictionKind


class Denoiser(nn.Module):
    """z_t (B, C, *cells) at time t (B,) in [0, 1], 0 without noise, and a condition -> an estimate of ``kind``.

    The condition is what a conditioner made of the batch: see ``vq/interfaces/conditions.py``.
    """

    kind: PredictionKind
    compiles = 'forward'

    def forward(self, z: Tensor, t: Tensor, condition: Any = None) -> Prediction:
        raise NotImplementedError
