"""From a map of features to the logits of classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vq.nn.batch_norm import BatchNorm

EPS = 1e-6
STD = 0.01


class PooledNorm(BatchNorm):
    """Batch norm without scale and shift, of the batches of all ranks together.

    So what is learned does not depend on how a batch is spread over ranks, and every rank has the same running statistics.
    It costs one collective of 2 C + 1 numbers a step. Keys are those of ``nn.BatchNorm1d(C, affine=False)``.
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

    With ``grid`` g the means are over g x g regions, and x are all of them, (B, C g g). At first W is drawn from N(0, 0.01^2),
    and b is 0.
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
        """What the linear layer takes, (B, dimension) fp32."""
        pooled: Tensor = self.norm(F.adaptive_avg_pool2d(features.float(), self.grid).flatten(1))
        return pooled

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.pool(features))
        return logits
