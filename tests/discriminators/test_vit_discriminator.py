"""The discriminator of a small vision transformer: its logits written out, other grids, its penalty, its errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.decoders.test_vit import torch_layer
from vq.core.errors import ConfigError, UserError
from vq.discriminators.vit import ViTDiscriminator
from vq.losses.penalties import R1Penalty
from vq.runners.optimizers import mark_undecayed

SMALL: dict[str, Any] = dict(dim=12, depth=2, heads=3, patch=4, grid=2)


def build(**settings: Any) -> ViTDiscriminator:
    torch.manual_seed(0)
    network = ViTDiscriminator(**{**SMALL, **settings})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def images(height: int = 8, width: int = 8, batch: int = 3) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize('logits', ['image', 'patches'])
def test_logits_written_out(logits: Any) -> None:
    network, image = build(logits=logits), images()
    rows = [network.class_token.expand(3, -1)]
    for y in (0, 4):
        for x in (0, 4):
            rows.append(image[:, :, y : y + 4, x : x + 4].flatten(1) @ network.stem.weight.flatten(1).T + network.stem.bias)
    tokens = torch.stack(rows, 1) + network.positions.weight
    for block in network.blocks:
        tokens = torch_layer(block)(tokens)  # type: ignore[arg-type]
    normal = torch.nn.functional.layer_norm(tokens, (12,), network.norm_out.weight, network.norm_out.bias, 1e-6)
    expected = (normal @ network.out.weight[0] + network.out.bias)[:, : 1 if logits == 'image' else None]
    expected = expected if logits == 'image' else expected[:, 1:]
    torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-5)


def test_images_of_other_sizes_and_precisions() -> None:
    assert build(logits='patches')(images(12, 20)).shape == (3, 15) and build()(images(12, 20)).shape == (3, 1)
    with torch.autocast('cpu', torch.bfloat16):
        assert build()(images()).shape == (3, 1)
    with pytest.raises(UserError, match='8 x 10 pixels are no whole number of patches'):
        build()(images(8, 10))


def test_no_image_influences_another() -> None:
    network, image = build().train(), images()
    torch.testing.assert_close(network(image)[1:2], network(image[1:2]))


def test_r1_has_second_derivatives() -> None:
    """By finite differences along a direction of the parameters; the last bias is a constant."""
    network, image, penalty = build().double(), images().double(), R1Penalty()
    penalty_of = lambda: r1(network, image)  # noqa: E731
    parameters = [value for name, value in network.named_parameters() if name != 'out.bias']
    gradients = torch.autograd.grad(penalty_of(), parameters, allow_unused=True)
    directions = [torch.randn_like(parameter) for parameter in parameters]
    expected = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)
    ends, step = [], 1e-6
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=sign * step)
        ends.append(penalty_of().detach())
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), torch.as_tensor(expected), rtol=1e-4, atol=0)
    single = build()
    logits = single(images())
    torch.testing.assert_close(penalty(single, images(), logits, logits), r1(single, images()))


def r1(network: ViTDiscriminator, image: Tensor) -> Tensor:
    """E |grad_x D(x)|^2, with plain attention."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        leaf = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(leaf).sum(), leaf, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def test_what_is_decayed_and_how_large_it_is() -> None:
    network = build()
    mark_undecayed(network, list(network.parameters()))
    assert network.positions.weight.undecayed and network.class_token.undecayed  # type: ignore[attr-defined]
    assert not network.out.weight.undecayed  # type: ignore[attr-defined]
    with torch.device('meta'):
        count = sum(parameter.numel() for parameter in ViTDiscriminator().parameters())
    assert count == 6 * (12 * 384**2 + 13 * 384) + (3 * 256 + 1 + 1 + 257 + 2) * 384 + 385  # blocks; stem, tables, norm; out


@pytest.mark.parametrize('settings', [dict(patch=0), dict(grid=0), dict(logits='both'), dict(heads=5), dict(depth=0)])
def test_settings_that_mean_nothing(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build(**settings)
