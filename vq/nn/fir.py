"""Fixed low-pass filters, which prevent aliasing when a feature map is halved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Blur(nn.Module):
    """(B, C, H, W) -> each channel convolved with the outer product of ``taps`` with itself, scaled to sum to one.

    ``padding`` zeros go on every side, and every ``stride``-th value is kept. The filter is not a weight and not in
    checkpoints; [1, 3, 3, 1] is exact in bf16. One depthwise 2-d convolution: on a CPU it is faster than two 1-d ones.
    """

    kernel: Tensor  # (1, 1, n, n)

    def __init__(self, *, stride: int = 1, padding: int = 0, taps: Sequence[int] = (1, 3, 3, 1)) -> None:
        super().__init__()
        self.stride, self.padding, self.taps = stride, padding, tuple(taps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the filter; also called after a move off the meta device."""
        device = self.kernel.device if 'kernel' in self._buffers else None
        taps = torch.tensor(self.taps, dtype=torch.float32, device=device) / sum(self.taps)
        self.register_buffer('kernel', torch.outer(taps, taps)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Filter.apply(x, self.kernel, self.stride, self.padding)  # type: ignore[no-untyped-call]
        return y

    def extra_repr(self) -> str:
        return f'taps={list(self.taps)}, stride={self.stride}, padding={self.padding}'


class _Filter(torch.autograd.Function):
    """The convolution with a constant filter. torch would compute its second derivatives channel by channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, kernel)  # x for its shape and memory format; the layers around save it anyway
        ctx.stride, ctx.padding = stride, padding
        channels = x.shape[1]
        return F.conv2d(x, kernel.to(x.dtype).expand(channels, -1, -1, -1), stride=stride, padding=padding, groups=channels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        x, kernel = ctx.saved_tensors
        gradient = _Adjoint.apply(gradients[0], x.detach(), kernel, ctx.stride, ctx.padding)  # type: ignore[no-untyped-call]
        return gradient, None, None, None


class _Adjoint(torch.autograd.Function):
    """The gradient of the convolution at its input: linear too, so its own gradient is the convolution again."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.stride, ctx.padding = stride, padding
        channels = x.shape[1]
        gradient, _, _ = torch.ops.aten.convolution_backward(
            y,
            torch.empty_like(x, dtype=y.dtype),
            kernel.to(y.dtype).expand(channels, -1, -1, -1),
            None,
            [stride, stride],
            [padding, padding],
            [1, 1],
            False,
            [0, 0],
            channels,
            [True, False, False],
        )
        result: Tensor = gradient
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (kernel,) = ctx.saved_tensors
        result = _Filter.apply(gradients[0], kernel, ctx.stride, ctx.padding)  # type: ignore[no-untyped-call]
        return result, None, None, None, None
