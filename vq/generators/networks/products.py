"""Products with few rows, as decoding has them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FEW = 32  # rows; with more the usual order is as fast


def few_rows(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer(x)`` for x (B, t, k) of few positions, on a CPU in fp32 by another order of the same product.

    MKL's product of a few rows and a transposed matrix is up to several times slower than that of the matrix and a few
    columns, W x^T, which it sees as large times thin; and its matrix times vector is slower than with two columns.
    """
    weight, bias = layer.weight, layer.bias
    count = x.shape[0] * x.shape[1]
    if x.device.type != 'cpu' or count > FEW or x.dtype != torch.float32 or torch.is_autocast_enabled('cpu'):
        y: Tensor = layer(x)
        return y
    flat = x.reshape(count, -1)
    columns = (flat if count > 1 else flat.expand(2, -1).contiguous()).t()
    product = torch.mm(weight, columns).t()[:count].contiguous().view(x.shape[0], x.shape[1], -1)
    return product if bias is None else product.add_(bias)
