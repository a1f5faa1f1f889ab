"""Packed products equal those of the modules, for any number of rows, and use the weights at the time of packing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vq.nn.packed import GeluLinear, Packed, PackedLinear, Product, Transposed, packed_copy, product_of


@pytest.mark.parametrize('rows', [1, 2, 16, 33])
@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize(
    'norm',
    [None, nn.RMSNorm(24, 1e-5), nn.RMSNorm(24, 1.0), nn.RMSNorm(24), nn.LayerNorm(24)],
    ids=['none', 'small eps', 'eps 1', 'no eps', 'layer norm'],
)
@torch.no_grad()
def test_products_are_those_of_the_modules(rows, bias, norm):
    """Compared with float64. The zero row tests the position of eps."""
    torch.manual_seed(0)
    linear = nn.Linear(24, 40, bias=bias)
    if norm is not None:
        nn.init.normal_(norm.weight)
    x, residual = torch.randn(7, 24), torch.randn(7, 40)
    x[3], x[5] = 0, x[5] * 1e-3
    product = product_of(linear, rows, norm)
    assert type(product) is (Transposed if rows == 1 else Packed)
    normed = x.double()
    if isinstance(norm, nn.RMSNorm):
        eps = torch.finfo(torch.float32).eps if norm.eps is None else norm.eps
        normed = normed * (normed.square().mean(-1, keepdim=True) + eps).rsqrt() * norm.weight.double()
    elif norm is not None:
        normed = norm(x).double()
    expected = normed @ linear.weight.double().t() + (linear.bias.double() if bias else 0)
    kept = residual.clone()
    for count in (7, 1):
        found, total = product(x[:count]), product.added(x[:count], residual[:count])
        torch.testing.assert_close(found, expected[:count].float(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(total, (residual[:count] + expected[:count]).float(), rtol=1e-5, atol=1e-5)
    assert torch.equal(residual, kept), 'what is added to stays as it was'
    linear.weight.zero_()
    torch.testing.assert_close(product(x), expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('autocast', [False, True])
def test_other_precisions_call_the_modules(autocast):
    dtype = torch.float32 if autocast else torch.bfloat16
    linear, norm = nn.Linear(8, 6).to(dtype), nn.RMSNorm(8).to(dtype)
    x, residual = torch.randn(3, 8, dtype=dtype), torch.randn(3, 6, dtype=dtype)
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        for rows in (1, 3):
            product = product_of(linear, rows, norm)
            assert type(product) is Product
            assert torch.equal(product(x), linear(norm(x)))
            assert torch.equal(product.added(x, residual), residual + linear(norm(x)))


@torch.no_grad()
def test_small_layers_are_not_packed():
    """The call of a packed product takes longer, which a small one does not make up for. GELU is worth it."""
    twin = packed_copy(nn.Sequential(nn.Linear(8, 8), GeluLinear(8, 8), nn.Linear(512, 256)), 4)
    assert [type(layer) for layer in twin] == [nn.Linear, PackedLinear, PackedLinear]


@pytest.fixture
def small_pays(monkeypatch):
    monkeypatch.setattr('vq.nn.packed.PAYS', 0)


@torch.no_grad()
def test_a_packed_copy_gives_what_the_network_gives(small_pays):
    """Also of a layer that stands in two places, and of GELU, which is part of the product."""
    torch.manual_seed(0)
    shared = nn.Linear(8, 8, bias=False)
    network = nn.Sequential(nn.Linear(6, 8), shared, nn.LayerNorm(8), GeluLinear(8, 8), shared)
    x = 3 * torch.randn(2, 5, 6)
    twin = packed_copy(network, 4)
    assert twin[1] is twin[4] and twin[2].weight is network[2].weight and isinstance(twin[3], PackedLinear)
    assert isinstance(network[0], nn.Linear) and len(network.state_dict()) == 8, 'the network stays as it was'
    exact = network.double()(x.double()).float()
    network.float()
    for rows in (x, x[:1], x[1]):
        torch.testing.assert_close(twin(rows), network(rows), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(twin(x), exact, rtol=1e-5, atol=1e-5)
    before = twin(x)
    for index in (0, 1, 3):
        network[index].weight.zero_()
    assert torch.equal(twin(x), before), 'the weights are those of the time of packing'


def test_networks_that_are_not_packed():
    low, compiled = nn.Sequential(nn.Linear(3, 3)).bfloat16(), nn.Sequential(nn.Linear(3, 3))
    compiled[0].compile(backend='eager')
    for network in (low, compiled, nn.Sequential(nn.ReLU())):
        assert packed_copy(network, 4) is network
    with torch.autocast('cpu', torch.bfloat16):
        network = nn.Sequential(nn.Linear(3, 3))
        assert packed_copy(network, 4) is network
