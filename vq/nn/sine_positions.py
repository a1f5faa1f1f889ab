"""Fixed sine-cosine position embeddings of a grid (Dosovitskiy et al. 2021; He et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError


def sine_line(length: int, channels: int, base: float = 10000.0) -> Tensor:
    """(length, channels) fp64: sines, then cosines, of  position * base^(-i / n),  i = 0 .. n - 1,  n = channels / 2."""
    pairs = channels // 2
    frequencies = base ** (-torch.arange(pairs, dtype=torch.float64, device='cpu') / pairs)
    angles = torch.outer(torch.arange(length, dtype=torch.float64, device='cpu'), frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sine_grid(height: int, width: int, channels: int) -> Tensor:
    """(height * width, channels) fp32, row by row: the first half of the channels tells the column, the second the row."""
    if channels % 4:
        raise ConfigError(
            f'{channels} channels do not divide into sines and cosines of rows and columns', 'Give a multiple of 4.'
        )
    columns, rows = sine_line(width, channels // 2), sine_line(height, channels // 2)
    shape = (height, width, channels // 2)
    return torch.cat([columns[None].expand(shape), rows[:, None].expand(shape)], dim=2).flatten(0, 1).float()


class SineGrid(nn.Module):
    """x (..., height * width, channels) + the embeddings of its cells.

    The table moves to every device with the module. It is recomputed there, so it is fp32 whatever the precision of weights.
    """

    table: Tensor

    def __init__(self, height: int, width: int, channels: int) -> None:
        super().__init__()
        self.height, self.width, self.channels = height, width, channels
        self.register_buffer('table', self._make().to(torch.get_default_device()), persistent=False)

    def _make(self) -> Tensor:
        return sine_grid(self.height, self.width, self.channels)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SineGrid:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.table.device.type != 'meta':
            self.table = self._make().to(self.table.device)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table
