"""Distances between a model's estimate of a teacher's features, and these features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vq.interfaces import ActsOn, Loss
from vq.nn.precision import no_autocast
from vq.registries import VQLossRegistry


@VQLossRegistry.register_()
class CosineLoss(Loss):
    """mean over images and cells of 1 - cos(prediction, features), for maps (B, C, h, w), in fp32.

    (Peng et al. 2022, BEiT v2, eq. 3, plus 1.) 0 for equal directions, 2 for opposite ones.
    """

    acts_on: ActsOn = 'features'

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, prediction: Tensor, features: Tensor) -> Tensor:
        with no_autocast(prediction.device):
            return 1 - F.cosine_similarity(prediction.float(), features.float(), dim=1).mean()
