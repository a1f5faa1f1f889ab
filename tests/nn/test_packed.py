"""Packed products are those of the modules, for any number of rows, and keep the weights of when they were made."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vq.nn.packed import product_of


@pytest.mark.parametrize('rows', [1, 2, 16, 33])
@pytest.mark.parametrize('eps', [1e-5, 1.0, None])
def test_products_are_those_of_the_modules(rows, eps):
    torch.manual_seed(0)
    linear, norm = nn.Linear(24, 40, bias=False), nn.RMSNorm(24, eps)
    nn.init.normal_(norm.weight)
    x = torch.randn(7, 24)
    with torch.no_grad():
        torch.testing.assert_close(product_of(linear, rows)(x), x @ linear.weight.t(), rtol=1e-5, atol=1e-5)
        product = product_of(linear, rows, norm)
        expected = linear(norm(x))
        torch.testing.assert_close(product(x), expected, rtol=1e-5, atol=1e-5)
        linear.weight.zero_()
        torch.testing.assert_close(product(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('bias', 'dtype'), [(True, torch.float32), (False, torch.bfloat16)])
def test_what_cannot_be_packed_is_the_module(bias, dtype):
    linear, norm = nn.Linear(8, 6, bias=bias).to(dtype), nn.RMSNorm(8).to(dtype)
    x = torch.randn(3, 8, dtype=dtype)
    assert product_of(linear, 3) is linear
    assert torch.equal(product_of(linear, 3, norm)(x), linear(norm(x)))
