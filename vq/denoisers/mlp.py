"""A denoiser of single vectors: the network of MAR's diffusion head."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.core.records import Prediction, PredictionKind
from vq.denoisers.blocks import EPS, FinalLayer, modulated, reset
from vq.denoisers.dit import vector_of
from vq.denoisers.times import SineTime
from vq.interfaces import Conditioned, Denoiser
from vq.nn.recompute import Recomputed
from vq.registries import VQDenoiserRegistry


class MLPBlock(Recomputed):
    """x + g mlp(norm(x) (1 + s) + b),  (b, s, g) = W c + w,  for x and c (N, width). W and w start at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, EPS)
        self.into, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.modulation = nn.Linear(width, 3 * width)

    def compute(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(c).chunk(3, dim=-1)
        y: Tensor = x + gate * self.out(F.silu(self.into(modulated(self.norm(x), shift, scale))))
        return y


@VQDenoiserRegistry.register_()
class MLPDenoiser(Denoiser):
    """z_t (N, channels, *cells) as one vector -> ``depth`` blocks of ``width`` channels -> an estimate of ``kind``.

    (Li et al. 2024, MAR: ``DiffLoss``.) Blocks are modulated by  c = silu(time(t) + V condition),  a condition of ``dim``
    numbers.

    - ``learned_variance``: as many outputs again, the variance of the reverse process.
    - ``timesteps`` T: the network is told the index t T - 1 of T steps; None: t itself.
    """

    def __init__(
        self,
        channels: int,
        cells: tuple[int, ...],
        dim: int,
        width: int = 1024,
        depth: int = 3,
        kind: PredictionKind = 'epsilon',
        learned_variance: bool = False,
        timesteps: int | None = 1000,
    ) -> None:
        super().__init__()
        if width < 1 or depth < 1:
            raise ConfigError(f'a width of {width} and a depth of {depth}', 'Give 1 channel and 1 block, or more.')
        self.channels, self.cells, self.dim = channels, tuple(cells), dim
        self.width, self.depth, self.kind, self.learned_variance = width, depth, kind, learned_variance
        numbers = channels * math.prod(self.cells)
        self.time = SineTime(width, timesteps)
        self.condition = nn.Linear(dim, width)
        self.into = nn.Linear(numbers, width)
        self.blocks = nn.ModuleList(MLPBlock(width) for _ in range(depth))
        self.final = FinalLayer(width, numbers * (2 if learned_variance else 1))
        reset(self)
        for block in self.blocks:
            nn.init.zeros_(block.modulation.weight)  # type: ignore[union-attr, arg-type]
        self.time.mlp.reset_parameters()

    def forward(self, z: Tensor, t: Tensor, condition: Conditioned | None = None) -> Prediction:
        c, vector = self.time(t), vector_of(condition, self.dim)
        c = F.silu(c if vector is None else c + self.condition(vector))  # (N, width)
        x = self.into(z.flatten(1))
        for block in self.blocks:
            x = block(x, c)
        value: Tensor = self.final(x, c)
        if not self.learned_variance:
            return Prediction(value.view_as(z), self.kind)
        value, variance = value.chunk(2, dim=1)
        return Prediction(value.view_as(z), self.kind, variance.view_as(z))
