"""Pixel differences between a reconstruction and its image, both in [-1, 1]."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vq.interfaces import Loss
from vq.nn.precision import no_autocast
from vq.registries import VQLossRegistry


@VQLossRegistry.register_()
class L1Loss(Loss):
    """mean |prediction - target|, in fp32."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        with no_autocast(prediction.device):
            return F.l1_loss(prediction.float(), target.float())


@VQLossRegistry.register_()
class MSELoss(Loss):
    """mean (prediction - target)^2, in fp32."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        with no_autocast(prediction.device):
            return F.mse_loss(prediction.float(), target.float())
