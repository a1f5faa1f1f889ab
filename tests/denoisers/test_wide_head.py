"""The diffusion transformer with a wide head: shapes, its start at zero, gradients, sizes, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from vq.core.errors import ConfigError
from vq.denoisers.wide_head import WideHeadDiT, wide_head_size
from vq.interfaces import Conditioned


def make(**settings) -> WideHeadDiT:
    torch.manual_seed(0)
    given = dict(channels=6, cells=(3, 5), dim=16, depth=2, heads=2, head_dim=24, head_depth=1, head_heads=3)
    return WideHeadDiT(**{**given, **settings})


def inputs(model: WideHeadDiT) -> tuple[torch.Tensor, torch.Tensor, Conditioned]:
    return torch.randn(2, model.channels, *model.cells), torch.tensor([0.2, 0.7]), Conditioned(torch.randn(2, 16))


@pytest.mark.parametrize('settings', [{}, dict(qk_norm=True), dict(head_dim=16, head_heads=2, cells=(4, 6), patch=2)], ids=str)
def test_starts_at_zero_and_every_parameter_learns(settings):
    model = make(**settings)
    z, t, condition = inputs(model)
    found = model(z, t, condition)
    assert found.value.shape == z.shape and found.kind == 'velocity' and not found.value.any()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    for block in (*model.blocks, *model.head_blocks):
        block.recompute = True
    value = model.train()(z, t, condition).value
    value.square().sum().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())
    assert not torch.equal(value, model(z, t).value) and not torch.equal(value, model(z, t.flip(0), condition).value)
    with torch.autocast('cpu', torch.bfloat16):
        low = model(z, t, condition).value
    assert (low.float() - value).norm() < 0.05 * value.norm()


def test_comes_back_from_the_meta_device():
    with torch.device('meta'):
        far = make()
    near = make()
    far.to_empty(device='cpu').load_state_dict(near.state_dict())
    assert torch.equal(far.positions.table, near.positions.table)
    assert torch.equal(far.time.frequencies, near.time.frequencies)  # random, and so part of the weights
    with torch.device('meta'):
        assert wide_head_size('XL') == {'depth': 28, 'dim': 1152, 'heads': 16}
        assert make(**wide_head_size('XL'), head_dim=2048, head_heads=16, head_depth=2).bridge.weight.shape == (2048, 1152)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(cells=(5, 4), patch=2), 'do not divide into patches of 2'),
        (dict(head_heads=5), '24 channels with 5 heads'),
        (dict(heads=8), 'multiple of 4'),
        (dict(head_depth=0), 'head_depth 0'),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        make(**settings)
