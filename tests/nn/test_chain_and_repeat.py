"""Chains of 1x1 convolutions, and upsampling without a convolution."""

from __future__ import annotations

import pytest
import torch

from vq.core.errors import ConfigError
from vq.nn.connectors import ChainConnector
from vq.nn.resample import make_upsample
from vq.registries import VQDecoderRegistry


@pytest.mark.parametrize('widths', [(7,), (4, 9)])
def test_a_chain_is_the_product_of_its_matrices(widths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    chain = ChainConnector(6, 3, widths).double()
    x = torch.randn(2, 6, 3, 5, dtype=torch.double)
    rows = x.permute(0, 2, 3, 1)
    for conv in chain.convs:
        rows = rows @ conv.weight[:, :, 0, 0].T + conv.bias
    torch.testing.assert_close(chain(x), rows.permute(0, 3, 1, 2))
    assert len(chain.convs) == len(widths) + 1


@pytest.mark.parametrize('widths', [(), (0,), (4, -1)])
def test_a_chain_needs_widths(widths: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match='has widths') as caught:
        ChainConnector(6, 3, widths)
    assert caught.value.hint


def test_repeat_makes_four_of_every_cell_and_has_no_weights() -> None:
    repeat = make_upsample(3, 'repeat')
    x = torch.randn(2, 3, 3, 5)
    assert torch.equal(repeat(x), x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    assert not list(repeat.parameters())


def test_a_decoder_that_repeats_lacks_only_the_convolutions() -> None:
    settings = dict(type='ConvDecoder', width=8, multipliers=(1, 2, 2), attention_levels=(), in_channels=4)
    with torch.device('meta'):
        one, other = (VQDecoderRegistry.build(dict(settings, upsample=kind)) for kind in ('nearest', 'repeat'))
    less = {name for name in one.state_dict() if name not in other.state_dict()}
    assert less == {f'levels.{index}.resample.conv.{leaf}' for index in range(2) for leaf in ('weight', 'bias')}
    assert set(other.state_dict()) < set(one.state_dict())
    assert other(torch.zeros(1, 4, 3, 2, device='meta')).shape == (1, 3, 12, 8)
