"""The StyleGAN2 discriminator: its filter, its group statistic, its scales, against formulas written out."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import ConfigError, UserError
from vq.discriminators.stylegan2 import EqualizedConv, EqualizedLinear, StyleGAN2Discriminator, group_deviation
from vq.nn.fir import Blur
from vq.registries import VQDiscriminatorRegistry

TINY = dict(image_size=16, channel_base=96, channel_max=8)  # 6, 8, 8 channels at 16, 8 and 4


def tiny(**options) -> StyleGAN2Discriminator:
    torch.manual_seed(0)
    model = StyleGAN2Discriminator(**{**TINY, **options})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith('bias'):
                parameter.normal_()
    return model


def blurred(x: Tensor, padding: int, stride: int) -> Tensor:
    """The weighted sum of sixteen shifted copies."""
    x = F.pad(x, (padding,) * 4)
    height, width = x.shape[2] - 3, x.shape[3] - 3
    total = sum(
        (1, 3, 3, 1)[row] * (1, 3, 3, 1)[column] / 64 * x[:, :, row : row + height, column : column + width]
        for row in range(4)
        for column in range(4)
    )
    return total[:, :, ::stride, ::stride]


@pytest.mark.parametrize(('padding', 'stride'), [(2, 1), (1, 2), (0, 3)])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_blur(padding, stride, memory_format):
    x = torch.randn(2, 5, 9, 12).to(memory_format=memory_format)
    torch.testing.assert_close(Blur(stride=stride, padding=padding)(x), blurred(x, padding, stride))
    assert not Blur().state_dict()
    flat = Blur()(torch.full((1, 2, 6, 6), 3.0))
    torch.testing.assert_close(flat, torch.full((1, 2, 3, 3), 3.0))  # keeps what is constant


@pytest.mark.slow
@pytest.mark.parametrize(('padding', 'stride', 'size'), [(2, 1, 5), (1, 2, 6), (1, 2, 7)])
def test_blur_gradients_of_both_orders(padding, stride, size):
    blur, x = (
        Blur(stride=stride, padding=padding).double(),
        torch.randn(2, 3, size, 4, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(blur, x)
    assert torch.autograd.gradgradcheck(blur, x)
    (cotangent,) = torch.autograd.grad(blur(x).square().sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(blurred(x, padding, stride).square().sum(), x, create_graph=True)
    torch.testing.assert_close(cotangent, expected)
    found, known = (torch.autograd.grad(value.pow(3).sum(), x)[0] for value in (cotangent, expected))
    torch.testing.assert_close(found, known)


def test_equalized_scales():
    """Weights are scaled by 1 / sqrt(fan in), so N(0, 1) weights keep the power of N(0, 1) inputs."""
    torch.manual_seed(0)
    conv, linear = EqualizedConv(64, 32, 3, gain=math.sqrt(2)), EqualizedLinear(500, 300)
    x, v = torch.randn(4, 64, 12, 12), torch.randn(40, 500)
    assert abs(conv(x).square().mean() - 2) < 0.2
    assert abs(linear(v).square().mean() - 1) < 0.1
    expected = F.conv2d(x, conv.weight / math.sqrt(64 * 9), conv.bias) * math.sqrt(2)
    torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('batch', 'size'), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 1), (6, 3), (7, 1), (8, 4), (9, 3), (10, 2)])
def test_group_deviation(batch, size):
    """Image by image: the groups are the images a distance of B / size apart, size the largest divisor up to 4."""
    x = torch.randn(batch, 3, 4, 4)
    groups = batch // size
    found = group_deviation(x, 4)
    for index in range(batch):
        members = x[index % groups :: groups]
        assert len(members) == size
        expected = (members.var(0, correction=0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(found[index], expected)


def test_logits_written_out():
    """Every scale, gain and blur from the paper's formulas, with gains after the activations."""
    model, image = tiny(), torch.randn(5, 3, 16, 16)

    def scaled(layer: torch.nn.Module) -> Tensor:
        return layer.weight / math.sqrt(layer.weight[0].numel())

    def active(x: Tensor, bias: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return F.leaky_relu(x + bias.view(shape), 0.2) * math.sqrt(2)

    h = active(F.conv2d(image, scaled(model.stem)), model.stem.bias)
    for block in model.blocks:
        skip = F.conv2d(blurred(h, 1, 2), scaled(block.skip))
        h = active(F.conv2d(h, scaled(block.conv), padding=1), block.conv.bias)
        h = active(F.conv2d(blurred(h, 2, 1), scaled(block.down), stride=2), block.down.bias)
        h = (h + skip) / math.sqrt(2)
    spread = torch.full((5, 1, 4, 4), 1e-4)  # five images: groups of one
    h = active(F.conv2d(torch.cat([h, spread], 1), scaled(model.head.conv), padding=1), model.head.conv.bias)
    h = active(h.flatten(1) @ scaled(model.head.hidden).T, model.head.hidden.bias)
    expected = h @ scaled(model.head.out).T + model.head.out.bias
    torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('batch', [1, 4, 5])
def test_r1_by_finite_differences(batch):
    """The derivative of the penalty at all parameters, along a random direction; groups of one and of four."""
    model, image = tiny().double(), torch.randn(batch, 3, 16, 16, dtype=torch.float64)
    model.head.forward = in_double(model.head)  # the head works in fp32, too coarse for differences
    names = [name for name, _ in model.named_parameters() if name not in ('head.out.bias',)]  # no part in the gradient
    weights = [model.get_parameter(name) for name in names]

    def penalty() -> Tensor:
        leaf = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf).sum(), leaf, create_graph=True)
        return gradient.square().sum((1, 2, 3)).mean()

    slopes = torch.autograd.grad(penalty(), weights, allow_unused=True)
    found = {name for name, slope in zip(names, slopes, strict=True) if slope is not None and slope.any()}
    assert found >= {name for name in names if name.endswith('weight')}  # biases only move kinks, but for the spread
    directions = [torch.randn_like(weight) for weight in weights]
    expected = sum((s * d).sum() for s, d in zip(slopes, directions, strict=True) if s is not None)
    step, values = 1e-7, []
    for sign in (1, -1):
        for weight, direction in zip(weights, directions, strict=True):
            weight.data += sign * step * direction
        values.append(penalty().detach())
        for weight, direction in zip(weights, directions, strict=True):
            weight.data -= sign * step * direction
    torch.testing.assert_close((values[0] - values[1]) / (2 * step), expected, rtol=1e-4, atol=1e-6)


def in_double(head):
    def forward(x: Tensor) -> Tensor:
        spread = group_deviation(x, head.group_size)[:, None, None, None].expand(-1, 1, 4, 4)
        h = F.leaky_relu(head.conv(torch.cat([x, spread], 1)), 0.2)
        return head.out(F.leaky_relu(head.hidden(h.flatten(1)), 0.2))

    return forward


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_bf16_autocast(memory_format):
    model, image = tiny(), torch.randn(6, 3, 16, 16)
    expected = model(image)
    late = copy.deepcopy(model).to(memory_format=memory_format)
    leaf = image.to(memory_format=memory_format).requires_grad_()
    torch.testing.assert_close(late(leaf), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast('cpu', torch.bfloat16):
        logits = late(leaf)
        (gradient,) = torch.autograd.grad(logits.sum(), leaf, create_graph=True)
    assert logits.dtype == torch.float32  # the head is fp32
    torch.testing.assert_close(logits, expected, rtol=0.05, atol=0.05 * expected.abs().max().item())
    gradient.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in late.parameters() if p.grad is not None)


def test_identical_images_have_finite_gradients_of_both_orders():
    """With zero variance the gradient of the square root stays finite."""
    model = tiny()
    image = torch.randn(1, 3, 16, 16).expand(4, -1, -1, -1).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(image).sum(), image, create_graph=True)
    gradient.square().sum().backward()
    assert gradient.isfinite().all() and image.grad.isfinite().all()


def test_state_round_trip_and_late_memory():
    config = dict(type='StyleGAN2Discriminator', **TINY)
    model, image = VQDiscriminatorRegistry.build(config), torch.randn(3, 3, 16, 16)
    with torch.device('meta'):
        late = VQDiscriminatorRegistry.build(config)
        assert late(torch.empty(3, 3, 16, 16)).is_meta
    late.to_empty(device='cpu')
    late.reset_parameters()  # the filters, which are not in state dicts
    assert all(abs(p.std() - 1) < 0.3 for name, p in late.named_parameters() if p.numel() > 100)
    late.load_state_dict(model.state_dict())
    assert torch.equal(late(image), model(image))


def test_other_sizes_are_refused():
    for shape in ((2, 3, 32, 32), (2, 3, 16, 8)):
        with pytest.raises(UserError, match='16 x 16') as caught:
            tiny()(torch.randn(shape))
        assert 'image_size' in caught.value.hint
    assert tiny(image_size=8)(torch.randn(2, 3, 8, 8)).shape == (2, 1)


@pytest.mark.parametrize('options', [dict(image_size=4), dict(image_size=48), dict(channel_base=8), dict(group_size=0)])
def test_settings_that_make_no_network(options):
    with pytest.raises(ConfigError) as caught:
        StyleGAN2Discriminator(**options)
    assert caught.value.hint
