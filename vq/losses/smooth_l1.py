"""Smooth L1 on features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import ActsOn, Loss
from vq.nn.precision import no_autocast
from vq.registries import VQLossRegistry


@VQLossRegistry.register_()
class SmoothL1Loss(Loss):
    """mean of d^2 / (2 beta) where |d| < beta, |d| - beta / 2 elsewhere;  d = prediction - features, in fp32.

    With ``standardise``, features are first layer-normed over channels, as in MAE and data2vec: teachers have a few channels
    of large values, which would dominate the mean.
    """

    acts_on: ActsOn = 'features'

    def __init__(self, beta: float = 1.0, standardise: bool = True, weight: float = 1.0) -> None:
        super().__init__()
        if beta <= 0:
            raise ConfigError(f'SmoothL1Loss has beta {beta}', 'Give a number above 0.')
        self.beta, self.standardise, self.weight = beta, standardise, weight

    def forward(self, prediction: Tensor, features: Tensor) -> Tensor:
        with no_autocast(prediction.device):
            goal = features.float()
            if self.standardise:
                goal = F.layer_norm(goal.movedim(1, -1), goal.shape[1:2]).movedim(-1, 1)
            return F.smooth_l1_loss(prediction.float(), goal, beta=self.beta)
