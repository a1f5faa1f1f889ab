"""Vectors that tell a network the time."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.nn.precision import no_autocast

SNAP = 1e-3  # an index that is as close to an integer is that integer: t in fp32 is k / T up to rounding


class TimeMLP(nn.Module):
    """features (B, n) of a time -> W2 silu(W1 features), (B, dim)."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(channels, dim), nn.Linear(dim, dim)

    def reset_parameters(self) -> None:
        for layer in (self.into, self.out):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        vector: Tensor = self.out(F.silu(self.into(features)))
        return vector


class SineTime(nn.Module):
    """t (B,) in [0, 1] -> (B, dim):  MLP [cos(n f_i), sin(n f_i)],  f_i = period^(-2 i / channels),  i < channels / 2.

    (Peebles and Xie 2023.) ``steps`` = T: n is t T - 1, the index of the published networks of T steps, 0 for the least noise;
    otherwise n is t. Indices between integers are allowed.
    """

    frequencies: Tensor

    def __init__(self, dim: int, steps: int | None = 1000, period: float = 10000.0, channels: int = 256) -> None:
        super().__init__()
        if (steps is not None and steps < 1) or not period > 1:
            raise ConfigError(
                f'{steps} timesteps with the period {period}', 'Give 1 timestep or more (None: t itself) and a period above 1.'
            )
        self.steps, self.period, self.channels = steps, float(period), channels
        self.mlp = TimeMLP(self.channels, dim)
        self.register_buffer('frequencies', self._make().to(torch.get_default_device()), persistent=False)

    def _make(self) -> Tensor:
        count = self.channels // 2
        exponents = -math.log(self.period) * torch.arange(count, dtype=torch.float32, device='cpu') / count
        # exp in fp64: in fp32 processors differ in the last bit, which at the index 999 moves an output by 1e-5 of its size
        return exponents.double().exp().float()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SineTime:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.frequencies.device.type != 'meta':
            self.frequencies = self._make().to(self.frequencies.device)
        return self

    def number(self, t: Tensor) -> Tensor:
        """n (B,) fp32. From t in fp64 it is exact; t in fp32 near 1 moves an index of 1000 by up to 3e-5."""
        if self.steps is None:
            return t.float()
        index = ((t if t.dtype == torch.float64 else t.float()) * self.steps - 1).float()
        whole = index.round()
        return torch.where((index - whole).abs() < SNAP, whole, index)

    def features(self, t: Tensor) -> Tensor:
        """(B, channels) fp32."""
        angles = self.number(t)[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1)

    def forward(self, t: Tensor) -> Tensor:
        with no_autocast(t.device):
            features = self.features(t)
        vector: Tensor = self.mlp(features.to(self.mlp.into.weight.dtype))
        return vector


class FourierTime(nn.Module):
    """t (B,) in [0, 1] -> (B, dim):  MLP [sin(2 pi w t), cos(2 pi w t)],  w (256,) standard normal numbers that stay fixed.

    (Tancik et al. 2020.) They are stored with the weights.
    """

    frequencies: Tensor

    def __init__(self, dim: int, count: int = 256) -> None:
        super().__init__()
        self.mlp = TimeMLP(2 * count, dim)
        self.register_buffer('frequencies', torch.randn(count))

    def features(self, t: Tensor) -> Tensor:
        """(B, 512) fp32."""
        angles = t.float()[:, None] * self.frequencies.float() * (2 * torch.pi)
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def forward(self, t: Tensor) -> Tensor:
        with no_autocast(t.device):
            features = self.features(t)
        vector: Tensor = self.mlp(features.to(self.mlp.into.weight.dtype))
        return vector
