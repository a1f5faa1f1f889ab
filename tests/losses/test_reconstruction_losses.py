"""Reconstruction losses against their definitions."""

from __future__ import annotations

import pytest
import torch

from vq.losses.reconstruction import L1Loss, MSELoss
from vq.registries import VQLossRegistry


@pytest.mark.parametrize(('name', 'power'), [('L1Loss', 1), ('MSELoss', 2)])
def test_definition_and_weight(name, power):
    loss = VQLossRegistry.build(dict(type=name, weight=0.5))
    assert loss.weight == 0.5
    x, y = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 5, 7)
    expected = (x.double() - y.double()).abs().pow(power).mean()
    torch.testing.assert_close(loss(x, y).double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('loss', [L1Loss(), MSELoss()])
def test_fp32_under_autocast_and_from_half(loss):
    """256 + 1 is 256 in bf16, so a difference computed in bf16 would be lost."""
    x, y = torch.full((4, 4), 1.0 + 2**-10), torch.ones(4, 4)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = loss(x, y)
        assert value.dtype == torch.float32
        assert value > 0
        assert loss(x.bfloat16(), y.bfloat16()).dtype == torch.float32
