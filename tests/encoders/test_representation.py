"""A teacher as an encoder: its norm and its sum of layers written out, resizing, and which weights are trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import ConfigError
from vq.encoders.representation import RepresentationEncoder
from vq.interfaces import Task
from vq.io.checkpoints import model_state
from vq.registries import VQEncoderRegistry

SIZES: dict[str, Any] = dict(dimension=16, depth=3, heads=2)
DINO = dict(type='DINOv2Teacher', **SIZES, image_size=28, registers=2)
TEACHERS: dict[str, dict[str, Any]] = {
    'dinov2': DINO,
    'mae': dict(type='MAETeacher', **SIZES, image_size=16, patch_size=8),
    'clip': dict(type='CLIPTeacher', **SIZES, width=16, image_size=28),
    'siglip': dict(type='SigLIPTeacher', **SIZES, image_size=32),
    'beit2': dict(type='BEiT2Teacher', **SIZES, image_size=48),
    'convnext': dict(type='ConvNeXtTeacher', dims=(4, 4, 8, 16), depths=(1, 1, 1, 3), image_size=64, upsample=2),
    'digits': dict(
        type='TrainedTeacher',
        image_size=8,
        classifier=dict(
            type='ImageClassification',
            classes=3,
            backbone=dict(
                type='ConvEncoder', width=4, multipliers=(1, 2), residual_blocks=1, attention_levels=(), out_channels=6
            ),
        ),
    ),
}


def build(teacher: dict[str, Any] = DINO, **settings: Any) -> RepresentationEncoder:
    torch.manual_seed(0)
    encoder: RepresentationEncoder = VQEncoderRegistry.build(dict(type='RepresentationEncoder', teacher=teacher, **settings))
    with torch.no_grad():
        for name, value in encoder.named_parameters():  # norms that are not one and zero
            if 'norm' in name:
                value.add_(torch.randn_like(value))
    return encoder.eval()


def images(height: int = 28, width: int = 42) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(2)) * 2 - 1


def test_the_last_block_is_the_last_norm_without_scale_and_shift() -> None:
    encoder, image = build(), images()
    found = encoder(image)
    norm: Any = encoder.teacher.network.norm  # type: ignore[union-attr]
    with torch.no_grad():
        last = encoder.teacher.features(image).patches
        plain = (last - norm.bias[:, None, None]) / norm.weight[:, None, None]
    assert found.shape == (2, 16, 2, 3) == (2, encoder.out_channels, 28 // encoder.downsampling, 42 // encoder.downsampling)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)
    assert not found.requires_grad


def test_a_sum_of_layers_with_the_norm_and_without() -> None:
    image = images()
    raw, normed = build(layers='sum_of_last_2', norm=False)(image), build(layers='sum_of_last_2')(image)
    both = build(layers=(1, 2), norm=False)(image)
    torch.testing.assert_close(raw, both[:, :16] + both[:, 16:])
    deviation = raw.var(1, correction=0, keepdim=True).add(1e-6).sqrt()
    torch.testing.assert_close(normed, (raw - raw.mean(1, keepdim=True)) / deviation, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('antialias', [False, True])
def test_images_are_resized_to_one_patch_for_each_cell(antialias: bool) -> None:
    encoder, image = build(downsampling=16, antialias=antialias), images(48, 32)
    small = F.interpolate(image, (42, 28), mode='bicubic', antialias=antialias)
    torch.testing.assert_close(encoder(image), build()(small))
    with pytest.raises(ConfigError, match='no whole number of cells of 16 pixels'):
        encoder(images(40, 32))


def test_bf16_gives_a_norm_in_fp32() -> None:
    with torch.autocast('cpu', torch.bfloat16):
        found = build()(images())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.mean(1), torch.zeros(2, 2, 3), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'layers'),
    [*((name, 'last') for name in TEACHERS), *(('dinov2', at) for at in (-1, 0, 'sum_of_last_2')), ('clip', 'projected')],
)
def test_exactly_what_the_output_depends_on_is_trained(name: str, layers: Any) -> None:
    with torch.device('meta'):
        VQEncoderRegistry.build(dict(type='RepresentationEncoder', teacher=TEACHERS[name], layers=layers, train_teacher=True))
    encoder = build(TEACHERS[name], layers=layers, norm=False, train_teacher=True)
    side = 4 * encoder.downsampling
    encoder(images(side, side)).square().sum().backward()
    trained = {key for key, value in encoder.named_parameters() if value.requires_grad}
    assert trained == {key for key, value in encoder.named_parameters() if value.grad is not None}
    assert trained and ('teacher.network.norm.weight' in trained) == (layers == 'last' and name in ('dinov2', 'mae', 'beit2'))
    if layers == 0:
        assert not any('blocks.1.' in key for key in trained)
    task, frozen = Task(), Task()
    task.encoder, frozen.encoder = encoder, build(TEACHERS[name], layers=layers)
    assert trained <= {key.removeprefix('encoder.') for key in model_state(task)}
    assert not {key for key in model_state(frozen) if 'digest' not in key}
    assert not any(value.requires_grad for value in frozen.parameters())
