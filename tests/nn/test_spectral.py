"""The convolution with spectral norm against torch's parametrization, and against singular values."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from vq.nn.spectral import SpectralConv1d


@pytest.mark.parametrize(('kernel', 'length'), [(1, 5), (3, 7), (9, 12)])
def test_it_is_that_of_torch(kernel: int, length: int) -> None:
    """Outputs, gradients, u and v over three training forwards with a changing weight, then in eval."""
    torch.manual_seed(0)
    own = SpectralConv1d(6, 4, kernel)
    peer = nn.Conv1d(6, 4, kernel, padding=kernel // 2, padding_mode='circular')
    peer.load_state_dict({'weight': own.weight.detach(), 'bias': own.bias.detach()})
    peer = spectral_norm(peer)
    weight, norm = peer.parametrizations.weight.original, peer.parametrizations.weight[0]
    norm._u.copy_(own.u)
    norm._v.copy_(own.v)
    for step in range(4):
        if step == 3:
            own.eval()
            peer.eval()
        x = torch.randn(2, 6, length)
        first, second = own(x), peer(x)
        torch.testing.assert_close(first, second)
        for out in (first, second):
            out.pow(3).sum().backward()
        torch.testing.assert_close(own.weight.grad, weight.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own.u, norm._u)
        torch.testing.assert_close(own.v, norm._v)
        with torch.no_grad():
            own.weight.sub_(0.1 * own.weight.grad)
            weight.copy_(own.weight)
        own.weight.grad = weight.grad = None


def test_the_largest_singular_value_is_one() -> None:
    torch.manual_seed(0)
    conv = SpectralConv1d(5, 7, 3)
    for _ in range(100):
        normalised = conv.normalised()
    assert abs(float(torch.linalg.svdvals(normalised.detach().flatten(1))[0]) - 1) < 1e-5


def test_two_forwards_before_one_backward_and_autocast() -> None:
    """As for real and reconstructed images: the second forward must not change what the first one keeps."""
    torch.manual_seed(0)
    conv, x = SpectralConv1d(4, 4, 3), torch.randn(2, 4, 6)
    together = conv(x), conv(-x)
    (together[0].square().sum() + together[1].square().sum()).backward()
    assert conv.weight.grad is not None and conv.weight.grad.isfinite().all()
    with torch.autocast('cpu', torch.bfloat16):
        assert conv.normalised().dtype == torch.float32 and conv(x).dtype == torch.bfloat16
