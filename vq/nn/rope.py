"""Rotary position embeddings: pairs of neighbouring channels are rotated by an angle that grows with the position."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def frequencies(pairs: int, base: float = 10000.0) -> Tensor:
    """(pairs,) fp32: base^(-i / pairs), the angle per position of pair i."""
    return 1.0 / base ** (torch.arange(0, 2 * pairs, 2, dtype=torch.float32, device='cpu') / (2 * pairs))


def rotary_line(length: int, channels: int, base: float = 10000.0) -> Tensor:
    """(length, channels / 2, 2): cosine and sine of position * frequency."""
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device='cpu'), frequencies(channels // 2, base))
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def rotary_grid(height: int, width: int, channels: int, base: float = 10000.0) -> Tensor:
    """(height * width, channels / 2, 2), row by row: the first half of the pairs rotates by row, the second by column."""
    if channels % 4:
        raise ValueError(f'{channels} channels do not divide into pairs for rows and pairs for columns')
    rows, columns = rotary_line(height, channels // 2, base), rotary_line(width, channels // 2, base)
    shape = (height, width, channels // 4, 2)
    return torch.cat([rows[:, None].expand(shape), columns[None].expand(shape)], dim=2).flatten(0, 1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """x (..., T, heads, D) and a table (T, D / 2, 2) -> x rotated, computed in fp32; fp64 stays.

    (a, b) -> (a cos - b sin, b cos + a sin) for each pair of neighbouring channels.
    """
    pairs = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(*x.shape[:-1], -1, 2)
    cos, sin = table[:, None].unbind(-1)
    a, b = pairs.unbind(-1)
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2).to(x.dtype)


class RotaryTable(nn.Module):
    """The table of a sequence, (length, channels / 2, 2) fp32: of a line, or of a grid in raster order.

    The first ``prefix`` positions have zeros for cosine AND sine, as in LlamaGen. Their queries and keys are zero, so all
    later positions attend to them with logit 0 at any distance. Positions are counted from the end of the prefix.
    ``still``: the prefix is not rotated, as in JiT.

    The table moves to every device with the module. It is recomputed there, so it is fp32 whatever the precision of weights.
    """

    table: Tensor

    def __init__(
        self,
        length: int,
        channels: int,
        grid: tuple[int, int] | None = None,
        prefix: int = 0,
        base: float = 10000.0,
        still: bool = False,
    ) -> None:
        super().__init__()
        if grid is not None and length > prefix + grid[0] * grid[1]:
            raise ValueError(f'{length} positions do not fit a grid of {grid[0]} x {grid[1]} after {prefix} positions')
        self.length, self.channels, self.grid, self.prefix, self.base = length, channels, grid, prefix, base
        self.still = still
        self.register_buffer('table', self._make().to(torch.get_default_device()), persistent=False)

    def _make(self) -> Tensor:
        rest = max(self.length - self.prefix, 0)
        if self.grid is None:
            turns = rotary_line(rest, self.channels, self.base)
        else:
            turns = rotary_grid(*self.grid, self.channels, self.base)
        first = torch.zeros(self.prefix, self.channels // 2, 2, device='cpu')
        first[..., 0] = float(self.still)
        return torch.cat([first, turns])[: self.length].contiguous()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RotaryTable:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.table.device.type != 'meta':
            self.table = self._make().to(self.table.device)
        return self

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Rotate x (..., T, heads, D) of the positions from ``start`` on."""
        return rotate(x, self.table[start : start + x.shape[-3]])
