"""Repeated products of a frozen weight with few rows, which make up every step of generation."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vq.nn.twice import gelu

Network = TypeVar('Network', bound=nn.Module)
PAYS = 2**17  # weights: the call of a packed product takes 15 us more than that of a plain one, what it saves grows with them


class GeluLinear(nn.Linear):
    """gelu(W x + w), with the tanh approximation of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return gelu(super().forward(x))


class Product:
    """x (N, k) -> linear(norm(x)) by the modules themselves."""

    def __init__(self, linear: nn.Linear, norm: nn.Module | None = None) -> None:
        self.linear, self.norm = linear, norm

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x if self.norm is None else self.norm(x))
        return y

    def added(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual (N, n) + linear(norm(x))."""
        return residual + self(x)


class Transposed(Product):
    """The product with one row, by a copy W^T (k, n). It streams through memory once; a product with W sums row by row."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, norm: nn.Module | None = None) -> None:
        weight, self.norm, self.length = _folded(linear, norm)
        self.weight, self.bias = weight.t().contiguous(), linear.bias

    def __call__(self, x: Tensor) -> Tensor:
        x = self.normed(x)
        return torch.mm(x, self.weight) if self.bias is None else torch.addmm(self.bias, x, self.weight)

    def added(self, x: Tensor, residual: Tensor) -> Tensor:
        y = torch.addmm(residual, self.normed(x), self.weight)
        return y if self.bias is None else y.add_(self.bias)

    def normed(self, x: Tensor) -> Tensor:
        """x / sqrt(mean(x^2) + eps), without the factor sqrt(channels) and the norm's weight, which are in the matrix.

        Computed as x / hypot(|x|, sqrt(channels * eps)), in fewer calls than the module needs.
        """
        if self.length is not None:
            length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
            return x / length.hypot_(self.length)
        return x if self.norm is None else self.norm(x)  # type: ignore[no-any-return]


class Packed(Transposed):
    """The product with a few rows, by a copy of W in oneDNN's packed layout. A plain product packs W at every call."""

    def __init__(self, linear: nn.Linear, rows: int, norm: nn.Module | None = None) -> None:
        weight, self.norm, self.length = _folded(linear, norm)
        operators: Any = torch.ops.mkldnn
        self.weight, self.bias = operators._reorder_linear_weight(weight.contiguous(), rows), linear.bias
        self.multiply = operators._linear_pointwise.default
        self.multiply_and_add = operators._linear_pointwise.binary

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self.multiply(self.normed(x), self.weight, self.bias, 'none', [], '')
        return y

    def added(self, x: Tensor, residual: Tensor) -> Tensor:
        y: Tensor = self.multiply_and_add(self.normed(x), residual, self.weight, self.bias, 'add')
        return y


def product_of(linear: nn.Linear, rows: int, norm: nn.Module | None = None) -> Product:
    """linear(norm(x)) for about ``rows`` vectors at a time, any number of times.

    On a CPU in fp32 it keeps a copy of the current weights in the fastest layout. Measured with 6 layers of 384 channels,
    44 MB, on one core: the plain product takes 1.3 times as long as ``Transposed`` with one row, and 1.5 times as long as
    ``Packed`` with 2 to 16 rows. An RMSNorm is folded into the weights. Elsewhere the modules are called.
    """
    if not _packs(linear.weight):
        return Product(linear, norm)
    if rows == 1:
        return Transposed(linear, norm)
    return Packed(linear, rows, norm) if _has_onednn() else Product(linear, norm)


class PackedLinear(nn.Module):
    """A frozen nn.Linear or ``GeluLinear`` with packed weights, for x (..., k)."""

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        operators: Any = torch.ops.mkldnn
        self.weight, self.bias = operators._reorder_linear_weight(linear.weight.detach().contiguous(), rows), linear.bias
        self.multiply = operators._linear_pointwise.default
        # oneDNN applies GELU while the product is in the cache: both take the time of the product
        self.after = ('gelu', 'tanh') if isinstance(linear, GeluLinear) else ('none', '')

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.multiply(x, self.weight, self.bias, self.after[0], [], self.after[1])
        return y


def packed_copy(network: Network, rows: int) -> Network:
    """The network for many passes without gradients, with copies of its current weights in the fastest layout.

    The copy runs the code of the network, with its other parameters, and its linear layers can only be called: their weights
    are in a layout of oneDNN. Measured with 384 channels on one core: with 4 to 64 rows, a product takes 0.75 to 0.95 of the
    time of a plain one; with 64 rows or more, one with GELU takes 0.75. ``rows``: of most products. Only on a CPU in fp32, and
    not for networks that are compiled or sharded: these are returned as they are.
    """
    linear = [module for module in network.modules() if type(module) in (nn.Linear, GeluLinear)]
    compiled = any(module._compiled_call_impl is not None for module in network.modules())
    if compiled or not _has_onednn() or not linear or not all(_packs(parameter) for parameter in network.parameters()):
        return network
    found: Network = _packed(network, rows, {})
    return found


def _packed(module: Any, rows: int, made: dict[nn.Module, nn.Module]) -> Any:
    """``made``: modules that stand in several places stay one module."""
    if module not in made:
        if isinstance(module, GeluLinear) or (type(module) is nn.Linear and module.weight.numel() >= PAYS):
            made[module] = PackedLinear(module, max(2, rows)).eval()
        else:
            made[module] = twin = copy.copy(module)
            children = module._modules.items()
            twin._modules = {name: None if child is None else _packed(child, rows, made) for name, child in children}
    return made[module]


def _packs(weight: Tensor) -> bool:
    """Whether it is an fp32 tensor of this process on the CPU."""
    plain = type(weight.detach()) is Tensor and weight.device.type == 'cpu' and weight.dtype == torch.float32
    return plain and not torch.is_autocast_enabled('cpu')


def _folded(linear: nn.Linear, norm: nn.Module | None) -> tuple[Tensor, nn.Module | None, Tensor | None]:
    """The weight (n, k), the norm if not folded into it, and sqrt(channels * eps) of an RMSNorm folded into it."""
    weight = linear.weight.detach()
    if not isinstance(norm, nn.RMSNorm):
        return weight, norm, None
    channels = weight.shape[1]
    eps = torch.finfo(weight.dtype).eps if norm.eps is None else norm.eps
    return weight * (norm.weight.detach() * channels**0.5), None, weight.new_tensor((channels * eps) ** 0.5)


def _has_onednn() -> bool:
    operators: Any = torch.ops.mkldnn  # private operators of torch's compiler, which can disappear
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(operators, '_reorder_linear_weight')
        and hasattr(operators, '_linear_pointwise')
    )
