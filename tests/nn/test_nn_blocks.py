"""Blocks against torch's own layers and closed forms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vq.core.errors import ConfigError
from vq.nn.attention import SpatialAttention
from vq.nn.connectors import ConvConnector, IdentityConnector
from vq.nn.norms import UnbiasedGroupNorm, group_count, make_norm
from vq.nn.precision import exact_matmul, no_autocast
from vq.nn.resample import ConvDownsample, Upsample, make_downsample
from vq.nn.residual import Residual


@pytest.mark.parametrize(('channels', 'groups'), [(128, 32), (32, 32), (48, 24), (16, 16), (7, 7), (1, 1), (34, 17), (37, 1)])
def test_group_count_is_the_largest_divisor(channels, groups):
    assert group_count(channels) == groups


def test_unbiased_group_norm_divides_by_count_minus_one():
    torch.manual_seed(0)
    norm = UnbiasedGroupNorm(2, 6, eps=1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(3, 6, 5, 7) * 2 + 1
    groups = x.double().reshape(3, 2, -1)
    expected = (groups - groups.mean(2, keepdim=True)) / (groups.std(2, correction=1, keepdim=True) ** 2 + 1e-6).sqrt()
    expected = expected.reshape(x.shape) * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected.float(), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(norm(x), F.group_norm(x, 2, norm.weight, norm.bias, 1e-6), atol=1e-3)


@pytest.mark.parametrize('kind', ['group', 'group_unbiased'])
def test_norms_are_fp32_under_autocast(kind):
    norm = make_norm(8, kind)
    x = torch.randn(2, 8, 4, 4) * 300 + 3000  # bf16 would lose the variance
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(norm(x), norm(x.clone()))
        torch.testing.assert_close(norm(x).mean(), torch.tensor(0.0), atol=1e-3, rtol=0)


def test_attention_is_the_textbook_formula():
    torch.manual_seed(0)
    attention = SpatialAttention(6)
    x = torch.randn(2, 6, 3, 5)
    h = attention.norm(x)
    q, k, v = (conv(h).flatten(2) for conv in (attention.q, attention.k, attention.v))
    weights = torch.softmax(torch.einsum('bci,bcj->bij', q, k) / 6**0.5, dim=2)
    mixed = torch.einsum('bij,bcj->bci', weights, v).reshape(x.shape)
    torch.testing.assert_close(attention(x), x + attention.proj(mixed), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('size', 'halved'), [((8, 8), (4, 4)), ((6, 10), (3, 5)), ((7, 9), (3, 4))])
def test_conv_downsample_pads_right_and_bottom(size, halved):
    layer = ConvDownsample(3)
    x = torch.randn(1, 3, *size)
    y = layer(x)
    assert y.shape == (1, 3, *halved)
    # the first output cell has the top left corner as input, without padding
    corner = torch.einsum('ocij,cij->o', layer.conv.weight, x[0, :, :3, :3]) + layer.conv.bias
    torch.testing.assert_close(y[0, :, 0, 0], corner, rtol=1e-5, atol=1e-5)


def test_average_downsample_and_upsample():
    x = torch.randn(2, 3, 6, 4)
    torch.testing.assert_close(make_downsample(3, 'average')(x)[0, 0, 0, 0], x[0, 0, :2, :2].mean())
    layer = Upsample(3)
    for mode in ('nearest', 'nearest-exact'):  # one and the same at a factor of two
        torch.testing.assert_close(layer(x), layer.conv(F.interpolate(x, scale_factor=2, mode=mode)))


def test_residual_shortcut_only_where_widths_differ():
    same, wider = Residual(4, 4, bias=False), Residual(4, 6)
    assert sum(p.numel() for p in same.parameters()) == 2 * 4 * 4 * 9 + 4 * 4
    assert wider.shortcut.weight.shape == (6, 4, 1, 1)
    with torch.no_grad():
        same.conv2.weight.zero_()
        wider.conv2.weight.zero_()
        wider.conv2.bias.zero_()
    x = torch.randn(2, 4, 5, 3)
    assert torch.equal(same(x), x)
    assert torch.equal(wider(x), wider.shortcut(x))


def test_connectors():
    x = torch.randn(2, 5, 3, 4)
    assert IdentityConnector(5, 5)(x) is x
    assert ConvConnector(5, 7, kernel_size=3)(x).shape == (2, 7, 3, 4)
    with pytest.raises(ConfigError, match='5 channels to 7'):
        IdentityConnector(5, 7)
    with pytest.raises(ConfigError, match='odd'):
        ConvConnector(5, 7, kernel_size=2)


def test_exact_matmul_restores_what_it_found():
    settings = torch.backends.cuda.matmul
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision('medium')
        with exact_matmul():
            assert settings.fp32_precision == 'ieee'
            assert torch.backends.mkldnn.matmul.fp32_precision == 'ieee'
        assert torch.get_float32_matmul_precision() == 'medium'
        assert settings.allow_tf32  # torch can still say it by its old name
        assert torch.backends.mkldnn.matmul.fp32_precision == 'bf16'
    finally:
        torch.set_float32_matmul_precision(before)


def test_no_autocast_on_every_device():
    with torch.autocast('cpu', dtype=torch.bfloat16), no_autocast(torch.device('cpu')):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with no_autocast(torch.device('meta')):
        pass
