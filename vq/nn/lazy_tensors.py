"""Operations in the form that XLA compiles well. XLA tensors are lazy: operations are recorded, and later run as one graph.

Some kernels of torch_xla run on the host, in the middle of a step: the graph is cut in two there, and tensors are copied.
The functions here take another form of the same operation for lazy tensors. Other tensors never come here. What a training
step does for XLA stands in ``vq/strategies/xla.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def is_lazy(x: Tensor) -> bool:
    return x.device.type == 'xla'


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent for integral exponents. torch_xla runs ``exp2`` on the host."""
    return torch.pow(2.0, exponent)


def repeat_cells(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, 2h, 2w) by views. torch_xla runs the backward of ``interpolate`` on the host."""
    batch, channels, height, width = x.shape
    wide = x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)  # (B, C, h, 2, w, 2)
    return wide.reshape(batch, channels, 2 * height, 2 * width)


def normalize_by_statistics(x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Batch norm of x (B, C, H, W) in eval mode, all statistics (C,). torch_xla has its backward in training mode only."""
    scale = weight * torch.rsqrt(variance + eps)
    shift = bias - mean * scale
    return (x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)).to(x.dtype)


def largest_score(features: Tensor, codes: Tensor, bias: Tensor, budget_bytes: int) -> Tensor:
    """argmax_k(features (N, C) . codes (K, C) + bias (K,)) -> (N,) int64, a slice of the features at a time.

    The compiler plans memory itself: there is no ``out=``, and torch_xla crashes on some writes into views.
    """
    rows = max(1, budget_bytes // (8 * len(codes)))
    starts = range(0, len(features), rows)
    return torch.cat([torch.argmax(torch.addmm(bias, features[start : start + rows], codes.t()), 1) for start in starts])
