"""From a feature map to class logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vq.nn.batch_norm import BatchNorm

EPS = 1e-6
STD = 0.01


class PooledNorm(BatchNorm):
    """Batch norm without scale and shift, with statistics over the batches of all ranks.

    Training does not depend on how a batch is split over ranks, and every rank has the same running statistics. The cost is
    one all-gather of 2 C + 1 numbers per forward, and one all-reduce in backward if the backbone is trained. The state dict
    has the keys of ``nn.BatchNorm1d(C, affine=False)``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS, synchronized=True)
        for name in ('weight', 'bias'):
            constant = getattr(self, name).detach()
            delattr(self, name)
            self.register_buffer(name, constant, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) -> (B, C)."""
        return super().forward(x[:, :, None, None])[:, :, 0, 0]


class LinearHead(nn.Module):
    """features (B, C, h, w) -> mean over cells -> batch norm -> logits W x + b (B, classes).

    With ``grid`` g the mean is taken over each of g x g regions, and x concatenates these means, (B, C g g). W starts from
    N(0, 0.01^2), b from 0.
    """

    def __init__(self, channels: int, classes: int, grid: int = 1) -> None:
        super().__init__()
        self.grid, self.dimension = grid, channels * grid**2
        self.norm = PooledNorm(self.dimension)
        self.linear = nn.Linear(self.dimension, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.norm.reset_parameters()
        nn.init.trunc_normal_(self.linear.weight, std=STD)
        nn.init.zeros_(self.linear.bias)

    def pool(self, features: Tensor) -> Tensor:
        """The input of the linear layer, (B, dimension) fp32."""
        pooled: Tensor = self.norm(F.adaptive_avg_pool2d(features.float(), self.grid).flatten(1))
        return pooled

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.pool(features))
        return logits
