"""The decoder of masked autoencoders: its formula with torch's layers, its last layer's gradients, other grids, its errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.decoders.test_vit import torch_layer
from vq.core.errors import ConfigError, UserError
from vq.decoders.mae import MAEDecoder
from vq.nn.sine_positions import sine_grid
from vq.runners.optimizers import mark_undecayed

SMALL: dict[str, Any] = dict(dim=12, depth=2, heads=3, patch=4, grid=3)
IMAGENET: dict[str, Any] = dict(pixel_mean=(0.485, 0.456, 0.406), pixel_deviation=(0.229, 0.224, 0.225))


def make(**settings: Any) -> MAEDecoder:
    torch.manual_seed(0)
    decoder = MAEDecoder(5, **{**SMALL, **settings})
    with torch.no_grad():
        for parameter in decoder.parameters():  # away from zero biases and unit norms
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


def written_out(decoder: MAEDecoder, x: Tensor) -> Tensor:
    """(B, 1 + N, dim) without positions -> patches (B, N, 3 * patch^2), position after position."""
    table = [[0.0] * 12]
    for row in range(3):
        for column in range(3):
            angles = [[at / 10_000 ** (k / 3) for k in range(3)] for at in (column, row)]
            table.append([f(a) for axis in angles for f in (math.sin, math.cos) for a in axis])
    x = x + torch.tensor(table)
    for block in decoder.blocks:
        layer = torch_layer(block)  # type: ignore[arg-type]
        layer.norm1.eps = layer.norm2.eps = 1e-12
        x = layer(x)
    x = F.layer_norm(x, (12,), decoder.norm_out.weight, decoder.norm_out.bias, 1e-12)
    found: Tensor = decoder.out(x[:, 1:])
    return found


def pixels(patches: Tensor) -> Tensor:
    image = torch.zeros(len(patches), 3, 12, 12)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET.values())
    for at in range(9):
        y, x = 4 * (at // 3), 4 * (at % 3)
        image[:, :, y : y + 4, x : x + 4] = 2 * (patches[:, at].view(-1, 3, 4, 4) * deviation + mean) - 1
    return image


def test_a_learned_class_token_stands_in_front() -> None:
    decoder, z = make(**IMAGENET), torch.randn(2, 5, 3, 3)
    rows = decoder.stem(z.flatten(2).transpose(1, 2))
    assert decoder.class_token is not None
    x = torch.cat([decoder.class_token.expand(2, 1, -1), rows], 1)
    torch.testing.assert_close(decoder(z), pixels(written_out(decoder, x)), rtol=1e-4, atol=1e-5)


def test_a_given_class_token_and_masked_cells() -> None:
    decoder, z = make(class_token='given', masked=True, **IMAGENET), torch.randn(2, 5, 10)
    mask = (torch.arange(10) % 3 == 1).float().expand(2, 1, -1)
    rows = decoder.stem(z.transpose(1, 2))
    torch.testing.assert_close(decoder(z), pixels(written_out(decoder, rows)), rtol=1e-4, atol=1e-5)
    assert decoder.mask_token is not None
    hidden = torch.where(mask[0, 0, :, None] > 0, decoder.mask_token, rows)
    found = decoder(torch.cat([z, mask], 1))
    torch.testing.assert_close(found, pixels(written_out(decoder, hidden)), rtol=1e-4, atol=1e-5)
    noise = z + mask * torch.randn_like(z)  # nothing of a masked cell is seen
    assert torch.equal(decoder(torch.cat([noise, mask], 1)), found)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_gradients_of_the_last_layer(dtype: torch.dtype) -> None:
    decoder, z = make(**IMAGENET), torch.randn(3, 5, 2, 4)
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype == torch.bfloat16):
        features = decoder.features(z)
        image = decoder.project(features)
        outer = torch.randn(2, *image.shape)
        expected = [torch.autograd.grad(image, decoder.out.weight, one.to(image.dtype), retain_graph=True)[0] for one in outer]
        found = decoder.last_layer_gradients(features.detach(), image.detach(), outer)
    assert image.dtype == torch.float32 and found.shape == (2, *decoder.out.weight.shape)
    tolerance = 1e-5 if dtype == torch.float32 else 0.03 * float(expected[0].abs().max())
    torch.testing.assert_close(found, torch.stack(expected).float(), rtol=1e-4, atol=tolerance)


def test_other_grids_and_what_is_saved() -> None:
    decoder = make()
    assert decoder(torch.randn(1, 5, 2, 5)).shape == (1, 3, 8, 20)
    assert not {'positions', 'scale', 'shift'} & {*decoder.state_dict()}
    plane = sine_grid(3, 3, 12).T.view(1, 12, 3, 3)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
        decoder.norm_out.weight.fill_(1)
        features = decoder.features(torch.zeros(1, 5, 2, 5))
    resized = F.interpolate(plane, (2, 5), mode='bicubic').permute(0, 2, 3, 1)
    torch.testing.assert_close(features, F.layer_norm(resized, (12,), eps=1e-12))
    mark_undecayed(decoder, list(decoder.parameters()))
    assert decoder.class_token is not None and decoder.class_token.undecayed  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ('settings', 'millions'), [(dict(), 86.24), (dict(dim=1152, depth=28, heads=16, mlp_ratio=4096 / 1152), 415.06)]
)
def test_published_sizes(settings: dict[str, Any], millions: float) -> None:
    """The published counts, 86,435,328 and 415,352,704 numbers, have the 257 positions in them."""
    with torch.device('meta'):
        decoder = MAEDecoder(768, **settings)
    count = sum(parameter.numel() for parameter in decoder.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(
    'settings', [dict(dim=10, heads=2), dict(patch=0), dict(class_token='none'), dict(pixel_deviation=(1, 1, 0))]
)
def test_settings_that_mean_nothing(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make(**settings)


@pytest.mark.parametrize(
    ('settings', 'shape'),
    [
        (dict(), (2, 5, 9)),
        (dict(), (2, 6, 3, 3)),
        (dict(class_token='given'), (2, 5, 3, 3)),
        (dict(class_token='given'), (2, 5, 9)),
    ],
)
def test_latents_of_another_shape(settings: dict[str, Any], shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match='latents of the shape'):
        make(**settings)(torch.zeros(shape))
