"""The distance of VA-VAE: only differences from a teacher's features above a margin count."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vq.interfaces import ActsOn, Loss
from vq.nn.precision import no_autocast
from vq.registries import VQLossRegistry


@VQLossRegistry.register_()
class MarginLoss(Loss):
    """w1 mean_i relu(1 - m1 - cos(p_i, f_i)) + w2 mean_ij relu(|cos(p_i, p_j) - cos(f_i, f_j)| - m2)

    (Yao et al. 2025, VA-VAE.) w1, w2 are ``cosine_weight`` and ``structure_weight``, m1, m2 ``cosine_margin`` and
    ``structure_margin``; i and j are cells of one image, p the prediction (B, C, h, w), f the teacher's features. The first
    term turns each vector towards the teacher's, the second makes cells as similar to each other as they are for the teacher.
    In fp32. Memory grows with the square of the number of cells.
    """

    acts_on: ActsOn = 'features'

    def __init__(
        self,
        cosine_margin: float = 0.5,
        structure_margin: float = 0.25,
        cosine_weight: float = 1.0,
        structure_weight: float = 1.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.cosine_margin, self.structure_margin = cosine_margin, structure_margin
        self.cosine_weight, self.structure_weight = cosine_weight, structure_weight
        self.weight = weight

    def forward(self, prediction: Tensor, features: Tensor) -> Tensor:
        with no_autocast(prediction.device):
            p, f = (F.normalize(x.float().flatten(2), dim=1) for x in (prediction, features))  # (B, C, L)
            cosine = F.relu(1 - self.cosine_margin - (p * f).sum(1)).mean()
            difference = p.transpose(1, 2) @ p - f.transpose(1, 2) @ f  # (B, L, L)
            structure = F.relu(difference.abs() - self.structure_margin).mean()
            return self.cosine_weight * cosine + self.structure_weight * structure
