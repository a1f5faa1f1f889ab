"""The discriminator on frozen features: its logits written out, who gets gradients, and the penalty of second order."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tests.runners.parts  # noqa: F401 # LivelyTeacher
from vq.core.errors import ConfigError
from vq.discriminators import dino
from vq.discriminators.dino import DINODiscriminator, spaced
from vq.losses.penalties import R1Penalty
from vq.registries import VQDiscriminatorRegistry

TEACHER = dict(type='DINOv2Teacher', dimension=16, depth=3, heads=2, image_size=28)


def build(**settings: Any) -> DINODiscriminator:
    torch.manual_seed(0)
    config = {'type': 'DINODiscriminator', 'teacher': TEACHER, 'layers': (0, 2), 'kernel_size': 3, **settings}
    network: DINODiscriminator = VQDiscriminatorRegistry.build(config, 'discriminator')
    with torch.no_grad():
        for name, parameter in network.heads.named_parameters():
            if 'norm' in name:
                parameter.normal_(1)
    return network


def images(batch: int = 6, height: int = 28, width: int = 42) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize(('batch', 'size'), [(6, 3), (5, 1), (4, 4)])
def test_logits_written_out(batch: int, size: int) -> None:
    """Token by token: circular convolutions with the normalised weights, statistics over groups of images."""
    network, image = build(group_size=4).eval(), images(batch)

    def convolved(x: Tensor, conv: Any) -> Tensor:
        weight, reach = conv.normalised(), conv.weight.shape[2] // 2
        parts = [torch.einsum('bcl,oc->bol', x.roll(reach - place, 2), weight[:, :, place]) for place in range(2 * reach + 1)]
        return sum(parts[1:], parts[0]) + conv.bias[:, None]

    def block(x: Tensor, part: Any) -> Tensor:
        x = convolved(x, part.conv)
        found = []
        for group in x.split(size):
            mean = group.mean((0, 2), keepdim=True)
            deviation = (group - mean).square().mean((0, 2), keepdim=True).add(1e-6).sqrt()
            found.append((group - mean) / deviation * part.norm.weight[:, None] + part.norm.bias[:, None])
        return F.leaky_relu(torch.cat(found), 0.2)

    expected = []
    for layer, head in zip((0, 2), network.heads, strict=True):
        tokens = network.teacher.features(image, layer).patches.flatten(2)
        h = block(tokens, head.first)
        h = (h + block(h, head.second)) / math.sqrt(2)
        expected.append(convolved(h, head.out)[:, 0])
    found = network(image)
    assert found.shape == (batch, 2 * 6)
    torch.testing.assert_close(found, torch.cat(expected, 1), rtol=1e-4, atol=1e-5)


def test_gradients_reach_heads_and_images_and_not_the_teacher() -> None:
    network, image = build().train(), images().requires_grad_()
    before = {name: value.clone() for name, value in network.teacher.state_dict().items()}
    network(image).square().sum().backward()
    assert image.grad is not None and image.grad.abs().amin((1, 2, 3)).ge(0).all() and image.grad.abs().sum() > 0
    learning = {name for name, value in network.named_parameters() if value.requires_grad}
    assert learning and all(name.startswith('heads.') for name in learning)
    assert all(value.grad is not None for name, value in network.named_parameters() if name in learning)
    assert not any(value.grad is not None for value in network.teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.teacher.state_dict().items())
    assert not network.teacher.training and network.heads.training


@pytest.mark.parametrize(
    ('settings', 'size', 'tokens'),
    [(dict(), (30, 45), 6), (dict(), (32, 32), 4), (dict(image_size=56), (20, 20), 16), (dict(), (5, 14), 1)],
)
def test_images_of_any_size(settings: dict[str, Any], size: tuple[int, int], tokens: int) -> None:
    with torch.autocast('cpu', torch.bfloat16):
        assert build(**settings)(images(2, *size).bfloat16()).shape == (2, 2 * tokens)


def test_r1_by_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second derivative passes the teacher's attention: of the penalty at the heads' parameters, along a direction.

    Without kinks: where an activation changes its slope, the penalty jumps. And without a norm: that of one channel over the
    patches would leave nothing of the sum of the logits."""
    monkeypatch.setattr(dino, 'SLOPE', 1.0)
    network, image = build(norm='none', teacher=dict(type='LivelyTeacher'), layers=None).eval(), images(3, 28, 28)
    penalty = R1Penalty()
    # the last bias is a constant
    parameters = [value for name, value in network.heads.named_parameters() if not name.endswith('out.bias')]

    def value() -> Tensor:
        return penalty(network, image, image, image)

    gradients = torch.autograd.grad(value(), parameters)
    directions = [torch.randn_like(parameter) for parameter in parameters]
    expected, step = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True)), 1e-3
    ends = []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=sign * step)
        ends.append(value().detach())
    assert float(expected) != 0
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), expected, rtol=3e-2, atol=0)


def test_layers_are_spaced_as_in_the_papers() -> None:
    assert (spaced(12), spaced(24), spaced(2)) == ((2, 5, 8, 11), (5, 11, 17, 23), (0, 1))


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(layers=(0, 3)), 'of a network of 3 layers'),
        (dict(kernel_size=4), 'Give an odd kernel_size'),
        (dict(image_size=30), 'Give a multiple of 14'),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(**settings)
    assert words in f'{error.value} {error.value.hint}'
