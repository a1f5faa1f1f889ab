"""Operations on the meta device, where only shapes are computed: some by a rule of our own.

torch derives the shapes of these from their decomposition in Python. That takes up to milliseconds for each call, which is
more than all the rest of counting a large model or rehearsing its step. The results are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_aten: Any = torch.ops.aten


def _like(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(x)


def _contiguous(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _softmax(x: Tensor, axis: int, dtype: torch.dtype | None = None) -> Tensor:
    return NotImplemented if dtype is not None else _contiguous(x)


def _softmax_backward(gradient: Tensor, result: Tensor, axis: int, dtype: torch.dtype) -> Tensor:
    return _contiguous(gradient) if gradient.dtype == dtype else NotImplemented


def _group_norm(x: Tensor, weight: Any, bias: Any, count: int, channels: int, cells: int, groups: int, eps: float) -> Any:
    """(N, C, ...) -> the same, means and deviations (N, groups)."""
    return _contiguous(x), x.new_empty(count, groups), x.new_empty(count, groups)


def _layer_norm(x: Tensor, shape: Any, *_: Any) -> Any:
    """(..., *shape) -> the same, means and deviations (..., 1)."""
    outer = (*x.shape[: x.dim() - len(shape)], *(1 for _ in shape))
    return _contiguous(x), *(x.new_empty(outer, dtype=max(x.dtype, torch.float32, key=_bytes)) for _ in range(2))


def _norm_backward(gradient: Tensor, x: Tensor, weight: Tensor | None, wanted: Any) -> Any:
    """-> gradients of input, weight and bias: as large as these, or None."""
    plain = all(value.is_contiguous() and value.dtype == gradient.dtype for value in (gradient, x))
    if not plain or (weight is not None and weight.dtype != x.dtype) or (weight is None and any(wanted[1:])):
        return NotImplemented
    found = (x, weight, weight)
    return tuple(torch.empty_like(value) if asked else None for value, asked in zip(found, wanted, strict=True))  # type: ignore[arg-type]


def _group_norm_backward(gradient: Tensor, x: Tensor, mean: Any, deviation: Any, weight: Any, *rest: Any) -> Any:
    return _norm_backward(gradient, x, weight, rest[-1])


def _layer_norm_backward(
    gradient: Tensor, x: Tensor, shape: Any, mean: Any, deviation: Any, weight: Any, bias: Any, wanted: Any
) -> Any:
    return _norm_backward(gradient, x, weight, wanted)


def _bytes(kind: torch.dtype) -> int:
    return kind.itemsize


def _addmm(bias: Tensor, one: Tensor, other: Tensor, **_: Any) -> Tensor:
    return one.new_empty(one.shape[0], other.shape[1])


def _pairwise(x: Tensor, other: Any, **_: Any) -> Tensor:
    """Of two tensors of one layout, or of a tensor and a number."""
    if isinstance(other, Tensor):
        same = (x.shape, x.stride(), x.dtype) == (other.shape, other.stride(), other.dtype)
    else:
        same = isinstance(other, int | float)
    return torch.empty_like(x) if same and x.is_floating_point() else NotImplemented


def _in_place(x: Tensor, *others: Any, **_: Any) -> Tensor:
    same = all(other.shape == x.shape and other.dtype == x.dtype for other in others if isinstance(other, Tensor))
    return x if same and x.is_floating_point() else NotImplemented


_RULES: dict[Any, Callable[..., Any]] = {
    _aten.native_group_norm.default: _group_norm,
    _aten.native_layer_norm.default: _layer_norm,
    _aten.addmm.default: _addmm,
    _aten.gelu.default: _like,
    _aten.gelu_backward.default: _like,
    _aten.silu.default: _like,
    _aten._safe_softmax.default: _softmax,
    _aten._softmax_backward_data.default: _softmax_backward,
    _aten.native_group_norm_backward.default: _group_norm_backward,
    _aten.native_layer_norm_backward.default: _layer_norm_backward,
    _aten.addcmul_.default: _in_place,
    _aten.addcdiv_.default: _in_place,
    _aten.lerp_.Scalar: _in_place,
}
for _name in ('add', 'sub', 'mul', 'div'):
    for _kind in ('Tensor', 'Scalar'):
        _RULES[getattr(getattr(_aten, _name), _kind)] = _pairwise
        _RULES[getattr(getattr(_aten, f'{_name}_'), _kind)] = _in_place


def run(function: Any, arguments: Any, named: Any) -> Any:
    """The result of an operation; on the meta device by its rule, if it has one that applies."""
    rule = _RULES.get(function)
    if rule is not None and all(value.is_meta for value in arguments if isinstance(value, Tensor)):
        found = rule(*arguments, **named)
        if found is not NotImplemented:
            return found
    return function(*arguments, **named)
