"""LPIPS on VGG-16 reproduces the figures of a peer, with weights from a formula."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from vq.losses.perceptual import LPIPSLoss


def formula(index: int, shape: list[int], std: float) -> Tensor:
    """u = frac(sin(12.9898 i + 78.233 (index + 1)) 43758.5453) for i = 1, 2, ... in float64; (u - 1/2) sqrt(12) std."""
    i = np.arange(1, math.prod(shape) + 1, dtype=np.float64)
    wave = np.sin(12.9898 * i + 78.233 * (index + 1)) * 43758.5453
    return torch.from_numpy(((wave - np.floor(wave) - 0.5) * math.sqrt(12) * std).astype(np.float32)).view(shape)


def weights_of(peer) -> dict[str, Tensor]:
    """Weights by the peer's names; the stored first values of each tensor must agree."""
    made = {}
    for name, shape, index, std in peer.meta['layers']:
        value = formula(index, shape, std)
        made[name] = value.abs() if name.startswith('lin') else value
        np.testing.assert_allclose(made[name].flatten()[:8], peer['out/weight_heads'][index], rtol=1e-5, atol=1e-8)
    return made


@pytest.fixture
def peer(golden):
    return golden('lpips_formula_weights')


@pytest.fixture
def loss(peer) -> LPIPSLoss:
    weights = weights_of(peer)
    ours = LPIPSLoss()
    ours.backbone.load_state_dict(
        {re.sub(r'net\.slice\d\.', '', name): value for name, value in weights.items() if name.startswith('net.')}
    )
    ours.heads.load_state_dict({name[3]: value for name, value in weights.items() if name.startswith('lin')})
    return ours


@pytest.mark.slow
def test_distance_gradient_and_activations(peer, loss):
    """The gradient is that of the sum over images, at the second one.

    In float32 different rounding flips a few ReLUs and changes the gradient by 0.3 %, also in the plain formula. The peer's
    figure agrees with float64 to 2e-6.
    """
    first, second = peer['in/image_a'], peer['in/image_b'].requires_grad_()
    distance = loss.distance(second, first)
    torch.testing.assert_close(distance, peer['out/lpips'].flatten(), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(loss(second, first), peer['out/lpips'].mean(), rtol=1e-4, atol=2e-5)
    means = torch.stack([features.abs().mean() for features in loss.backbone((first - loss.shift) / loss.scale)])
    torch.testing.assert_close(means, peer['out/feature_mean_abs'], rtol=1e-4, atol=2e-5)

    expected = peer['out/grad_image_b']
    (gradient,) = torch.autograd.grad(distance.sum(), second)
    assert (gradient - expected).norm() < 1e-2 * expected.norm()
    exact = loss.double().distance(second, first.double())
    torch.testing.assert_close(exact.float(), peer['out/lpips'].flatten(), rtol=1e-4, atol=2e-5)
    (gradient,) = torch.autograd.grad(exact.sum(), second)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
