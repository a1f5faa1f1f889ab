"""Our rules for shapes on the meta device give what torch derives: shapes, strides and types, also where no rule applies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from vq.core import shapes

ATEN: Any = torch.ops.aten


def empty(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*sizes, device='meta', dtype=dtype)


def layouts(dtype: torch.dtype) -> Iterator[Tensor]:
    image, rows = empty(3, 8, 5, 7, dtype=dtype), empty(3, 11, 8, dtype=dtype)
    yield from (image, image.contiguous(memory_format=torch.channels_last), image.transpose(2, 3))
    yield from (rows, rows.transpose(1, 2), rows[:, ::2], rows[0, 0], empty(1, 8, dtype=dtype).expand(4, 8))


def calls(dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    weight = empty(8, dtype=dtype)
    for x in layouts(dtype):
        yield from ((ATEN.gelu.default, x), (ATEN.silu.default, x), (ATEN.gelu_backward.default, x, x))
        yield from ((ATEN._safe_softmax.default, x, -1), (ATEN._safe_softmax.default, x, 0, torch.float64))
        for kind in (dtype, torch.float32):
            yield ATEN._softmax_backward_data.default, x.float(), x.float(), -1, kind
        for operation in (ATEN.add, ATEN.sub, ATEN.mul, ATEN.div):
            for other in (x, x.double(), x.new_empty(1), x.contiguous(), 2, 2.5, True):
                yield operation.Tensor, x, other
            yield operation.Scalar, x, 2.5
            yield operation.Tensor, x.long(), 2.5
        for operation in (ATEN.add_, ATEN.sub_, ATEN.mul_, ATEN.div_):
            for other in (x.clone(), x.new_empty(1), x.float(), 2, 2.5):
                yield operation.Tensor, x.clone(), other
            yield operation.Scalar, x.clone(), 2.5
        for operation in (ATEN.addcmul_.default, ATEN.addcdiv_.default):
            yield from ((operation, x.clone(), x, x), (operation, x.clone(), x, x.new_empty(1)))
        yield ATEN.lerp_.Scalar, x.clone(), x, 0.5
        if x.dim() > 1 and x.shape[1] == 8:
            cells = x[0, 0].numel()
            for groups, scale in ((4, weight), (8, empty(8)), (1, None)):
                yield ATEN.native_group_norm.default, x, scale, scale, len(x), 8, cells, groups, 1e-5
                wanted, means = [True, scale is not None, scale is not None], x.new_empty(len(x), groups)
                for gradient in (x, x.contiguous()):
                    sizes = (len(x), 8, cells, groups, wanted)
                    yield ATEN.native_group_norm_backward.default, gradient, x, means, means, scale, *sizes
        yield ATEN.native_layer_norm.default, x, x.shape[-1:], None, None, 1e-5
        yield ATEN.native_layer_norm.default, x, x.shape, empty(*x.shape), empty(*x.shape), 1e-5
        for scale in (empty(x.shape[-1], dtype=dtype), empty(x.shape[-1]), None):
            wanted, means = [True, scale is not None, scale is not None], x[..., :1].float()
            yield ATEN.native_layer_norm_backward.default, x, x, x.shape[-1:], means, means, scale, scale, wanted
    for other in (empty(8, 6, dtype=dtype), empty(6, 8, dtype=dtype).t()):
        yield ATEN.addmm.default, empty(6, dtype=dtype), empty(5, 8, dtype=dtype), other


def described(results: Any) -> list[Any]:
    found = results if isinstance(results, tuple) else (results,)
    return [value if value is None else (value.shape, value.stride(), value.dtype, value.device) for value in found]


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float64])
def test_results_are_those_of_torch(dtype: torch.dtype) -> None:
    used = set()
    for function, *arguments in calls(dtype):
        assert described(shapes.run(function, arguments, {})) == described(function(*arguments)), (function, arguments)
        used.add(function)
    assert used == set(shapes._RULES)


def test_values_are_computed_elsewhere() -> None:
    x = torch.tensor([1.0, 2.0])
    assert torch.equal(shapes.run(ATEN.add.Tensor, (x, x), {'alpha': 2}), 3 * x)
