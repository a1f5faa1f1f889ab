"""The patch discriminator: its shape, its norms, its errors."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vq.core.errors import ConfigError, UserError
from vq.discriminators.patchgan import PatchGAN
from vq.nn.batch_norm import BatchNorm
from vq.registries import VQDiscriminatorRegistry

NORMS = ['batch', 'group', 'act', 'none']


def tiny(**options) -> PatchGAN:
    torch.manual_seed(0)
    return PatchGAN(**{'width': 4, 'depth': 2, **options})


def lively(**options) -> PatchGAN:
    """Weights large enough for every part to have an effect."""
    model = tiny(**options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 4 and 'norm' not in name:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
    return model


@pytest.mark.parametrize(('depth', 'size'), [(1, 16), (2, 24), (3, 64), (5, 224)])
def test_widths_and_strides(depth, size):
    with torch.device('meta'):
        model = PatchGAN(width=8, depth=depth, max_multiplier=4)
        image = torch.empty(2, 3, size, size)
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.stride[0] for conv in convs] == [2] * depth + [1, 1]
    assert [conv.out_channels for conv in convs] == [8 * min(2**index, 4) for index in range(depth + 1)] + [1]
    assert [conv.bias is None for conv in convs] == [False] + [True] * depth + [False]
    assert model(image).shape == (2, 1, size // 2**depth - 2, size // 2**depth - 2)


def test_receptive_field_is_the_papers_seventy_pixels():
    """A logit's gradient covers 70 x 70 pixels in the default network."""
    torch.manual_seed(0)
    model = PatchGAN(width=4, norm='none')
    image = torch.randn(1, 3, 128, 128).requires_grad_()
    logits = model(image)
    (gradient,) = torch.autograd.grad(logits[0, 0, 6, 6], image)
    rows = gradient[0].abs().sum((0, 2)).nonzero()
    assert rows.max() - rows.min() + 1 == 70


def test_odd_images_and_the_smallest():
    model = tiny(depth=3)
    assert model.smallest == 24
    assert model(torch.randn(2, 3, 24, 37)).shape == (2, 1, 1, 2)
    with pytest.raises(UserError, match='23 x 64') as caught:
        model(torch.randn(2, 3, 23, 64))
    assert '24 pixels' in caught.value.hint
    assert tiny(kernel_size=3)(torch.randn(1, 3, 9, 11)).shape == (1, 1, 3, 3)


@pytest.mark.parametrize('size', range(8, 20))
def test_smallest_is_where_convolutions_stop_working(size):
    model = tiny(depth=2, norm='none')
    plain = nn.Sequential(model.stem, *(block.conv for block in model.blocks), model.head)
    if size >= model.smallest:
        assert plain(torch.randn(1, 3, size, size)).numel() >= 1
    else:
        with pytest.raises(RuntimeError):
            plain(torch.randn(1, 3, size, size))


def test_logits_written_out():
    """Logits of two levels with batch norm, by torch's functions."""
    model, image = lively(), torch.randn(3, 3, 20, 28)
    h = F.leaky_relu(F.conv2d(image, model.stem.weight, model.stem.bias, stride=2, padding=1), 0.2)
    for block, stride in zip(model.blocks, (2, 1), strict=True):
        h = F.conv2d(h, block.conv.weight, stride=stride, padding=1)
        mean, variance = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), correction=0, keepdim=True)
        h = (h - mean) / (variance + 1e-5).sqrt() * block.norm.weight.view(1, -1, 1, 1) + block.norm.bias.view(1, -1, 1, 1)
        h = F.leaky_relu(h, 0.2)
    expected = F.conv2d(h, model.head.weight, model.head.bias, padding=1)
    torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-5)


def test_initial_weights():
    torch.manual_seed(0)
    model = PatchGAN(width=32)
    weights = torch.cat([module.weight.flatten() for module in model.modules() if isinstance(module, nn.Conv2d)])
    gains = torch.cat([module.weight for module in model.modules() if isinstance(module, BatchNorm)])
    assert abs(weights.std() - 0.02) < 1e-4 and abs(weights.mean()) < 1e-4
    assert abs(gains.std() - 0.02) < 2e-3 and abs(gains.mean() - 1) < 5e-3
    assert all(not bias.any() for name, bias in model.named_parameters() if name.endswith('bias'))


@pytest.mark.parametrize('norm', NORMS)
def test_second_order_gradients(norm):
    """R1 by autograd, against central differences of the penalty along a random direction of one weight."""
    model = lively(norm=norm).double()
    image = torch.randn(3, 3, 18, 16, dtype=torch.float64)
    model(image)  # starts activation norm
    model.eval()

    def penalty() -> torch.Tensor:
        leaf = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf).square().sum(), leaf, create_graph=True)
        return gradient.square().sum()

    weight = model.blocks[0].conv.weight
    (slope,) = torch.autograd.grad(penalty(), weight)
    direction = torch.randn_like(weight)
    step, values = 1e-6, []
    for sign in (1, -1):
        weight.data += sign * step * direction
        values.append(penalty().detach())
        weight.data -= sign * step * direction
    torch.testing.assert_close((values[0] - values[1]) / (2 * step), (slope * direction).sum(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('norm', NORMS)
def test_bf16_autocast_and_channels_last(norm):
    model = lively(norm=norm)
    image = torch.randn(4, 3, 24, 24)
    model(image)
    expected = copy.deepcopy(model)(image)
    with torch.autocast('cpu', torch.bfloat16):
        logits = copy.deepcopy(model).to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1 * expected.abs().max().item())


def test_bad_batch_does_not_stay():
    model = tiny()
    model(torch.randn(2, 3, 24, 24))
    before = {key: value.clone() for key, value in model.named_buffers()}
    image = torch.randn(2, 3, 24, 24)
    image[1, 0, 5, 5] = float('nan')
    model(image)
    torch.testing.assert_close(dict(model.named_buffers()), before, rtol=0, atol=0)
    assert model.eval()(torch.randn(2, 3, 24, 24)).isfinite().all()


@pytest.mark.parametrize('norm', NORMS)
def test_state_round_trip_and_late_memory(norm):
    config = dict(type='PatchGAN', width=4, depth=2, norm=norm)
    model, image = VQDiscriminatorRegistry.build(config), torch.randn(2, 3, 16, 16)
    model(image)
    with torch.device('meta'):
        late = VQDiscriminatorRegistry.build(config)
        assert late(torch.empty(2, 3, 16, 16)).is_meta
    late.to_empty(device='cpu')
    late.reset_parameters()
    assert all(value.isfinite().all() for value in late.state_dict().values())
    late.load_state_dict(model.state_dict())
    assert torch.equal(late.eval()(image), model.eval()(image))


@pytest.mark.parametrize(
    'options', [dict(depth=0), dict(width=0), dict(kernel_size=1), dict(slope=-1.0), dict(norm='group', synchronized=True)]
)
def test_settings_that_make_no_network(options):
    with pytest.raises(ConfigError) as caught:
        PatchGAN(**options)
    assert caught.value.hint
