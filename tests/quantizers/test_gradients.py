"""Gradient estimators of quantizers, and SimVQ, in which every step moves all codes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vq.core.errors import ConfigError
from vq.quantizers.gradients import rotation, straight_through
from vq.quantizers.sim_vq import SimVectorQuantizer
from vq.quantizers.vector import VectorQuantizer


def gradient_at(function, x, codes, outer):
    x = x.clone().requires_grad_()
    z = function(x, codes)
    assert torch.equal(z, codes)
    return torch.autograd.grad((z * outer).sum(), x)[0]


@pytest.mark.parametrize('shape', [(50, 3), (2, 5, 17)])
def test_rotation_keeps_angles(shape):
    """The gradient keeps its angle to c as an angle to x, scaled by |c| / |x|; straight-through does not change it."""
    torch.manual_seed(0)
    x, codes, outer = torch.randn(3, *shape, dtype=torch.float64)
    turned = gradient_at(rotation, x, codes, outer)
    torch.testing.assert_close(F.cosine_similarity(turned, x, dim=-1), F.cosine_similarity(outer, codes, dim=-1))
    torch.testing.assert_close(turned.norm(dim=-1), outer.norm(dim=-1) * codes.norm(dim=-1) / x.norm(dim=-1))
    assert torch.equal(gradient_at(straight_through, x, codes, outer), outer)


def test_rotation_turns_x_into_its_code():
    """The linear map whose transpose is the gradient takes x to c."""
    torch.manual_seed(0)
    x, code = torch.randn(2, 4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda value: rotation(value, code), x)
    torch.testing.assert_close(jacobian @ x, code)


@pytest.mark.parametrize('length', [0.0, 1e-30])
def test_rotation_of_nothing_is_finite(length):
    x = torch.full((3, 4), length)
    assert gradient_at(rotation, x, torch.randn(3, 4), torch.ones(3, 4)).isfinite().all()
    assert gradient_at(rotation, torch.randn(3, 4), x, torch.ones(3, 4)).isfinite().all()


def test_one_step_of_simvq_moves_all_codes_and_no_frozen_one():
    torch.manual_seed(0)
    quantizer = SimVectorQuantizer(500, 6, frozen_dim=9)
    assert {name for name, _ in quantizer.named_parameters()} == {'projection.weight', 'projection.bias'}
    assert {'frozen.weight'} <= quantizer.state_dict().keys()
    torch.testing.assert_close(quantizer.frozen.weight.std(), torch.tensor(9**-0.5), rtol=0.05, atol=0)
    frozen, codes = quantizer.frozen.weight.clone(), quantizer.codes().detach()
    quantizer(torch.randn(1, 6)).losses['codebook'].backward()  # one feature, one code
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.sub_(parameter.grad)
    assert torch.equal(quantizer.frozen.weight, frozen)
    assert (quantizer.codes() != codes).any(1).all()


@pytest.mark.parametrize('kind', [VectorQuantizer, SimVectorQuantizer])
def test_bad_settings(kind):
    with pytest.raises(ConfigError, match='spin') as caught:
        kind(4, 4, gradient='spin')
    assert caught.value.hint
