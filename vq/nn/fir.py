"""Fixed low-pass filters, which keep halving a feature map from aliasing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Blur(nn.Module):
    """(B, C, H, W) -> each channel convolved with the outer product of ``taps`` with itself, scaled to sum to one.

    ``padding`` zeros go on every side, and every ``stride``-th value is kept. The filter is no weight: no checkpoint has
    it, and [1, 3, 3, 1] is exact in bf16. One depthwise convolution: on a CPU two of one dimension each took 1.3 to 2
    times as long.
    """

    kernel: Tensor  # (1, 1, n, n)

    def __init__(self, *, stride: int = 1, padding: int = 0, taps: Sequence[int] = (1, 3, 3, 1)) -> None:
        super().__init__()
        self.stride, self.padding, self.taps = stride, padding, tuple(taps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the filter (again, after a move off the meta device)."""
        device = self.kernel.device if 'kernel' in self._buffers else None
        taps = torch.tensor(self.taps, dtype=torch.float32, device=device) / sum(self.taps)
        self.register_buffer('kernel', torch.outer(taps, taps)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, -1, -1, -1)
        return F.conv2d(x, kernel, stride=self.stride, padding=self.padding, groups=channels)

    def extra_repr(self) -> str:
        return f'taps={list(self.taps)}, stride={self.stride}, padding={self.padding}'
