"""Matrix products of a frozen weight with few rows, again and again: what every step of generation is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Product = Callable[[Tensor], Tensor]


def product_of(linear: nn.Linear, rows: int, norm: nn.RMSNorm | None = None) -> Product:
    """x -> linear(norm(x)) for about ``rows`` vectors at a time, with the weights as they are now.

    On a CPU in fp32 the weights are copied once into the layout in which oneDNN multiplies them, and those of the norm go
    into them: at 16 rows that takes about two thirds of the time of the plain product, which lays them out at every call.
    Elsewhere the modules themselves are called.
    """
    weight = linear.weight.detach()
    if not _can_pack(weight) or linear.bias is not None:
        return linear if norm is None else lambda x: linear(norm(x))  # type: ignore[no-any-return]
    if norm is None:
        return _Packed(weight, rows)
    channels = weight.shape[1]
    eps = torch.finfo(weight.dtype).eps if norm.eps is None else norm.eps
    product = _Packed(weight * (norm.weight.detach() * channels**0.5), rows)

    def normed(x: Tensor) -> Tensor:
        # x / sqrt(mean(x^2) + eps) = sqrt(channels) x / sqrt(sum(x^2) + channels eps): the constant is in the weights
        return product(x * x.square().sum(-1, keepdim=True).add_(channels * eps).rsqrt_())

    return normed


class _Packed:
    def __init__(self, weight: Tensor, rows: int) -> None:
        operators: Any = torch.ops.mkldnn
        self.weight = operators._reorder_linear_weight(weight.contiguous(), rows)
        self.multiply = operators._linear_pointwise.default

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self.multiply(x, self.weight, None, 'none', [], '')
        return y


def _can_pack(weight: Tensor) -> bool:
    operators: Any = torch.ops.mkldnn
    return (
        type(weight) is Tensor
        and weight.device.type == 'cpu'
        and weight.dtype == torch.float32
        and not torch.is_autocast_enabled('cpu')
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(operators, '_reorder_linear_weight')  # of torch's own compiler, so not for ever
        and hasattr(operators, '_linear_pointwise')
    )
