"""Teachers against the networks of the packages they come from: layers, patches, pooled vectors, sizes; and their faces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.runners.parts import FeatureDistance
from tests.runners.support import build_trainer, quiet
from tests.teachers.test_vision_transformers import published_dinov2, random_like
from vq.core.errors import ConfigError
from vq.core.records import Batch, Losses, Outputs, to_float
from vq.encoders.teacher import TeacherEncoder
from vq.interfaces import Pretrained, Task
from vq.io.checkpoints import model_state
from vq.nn.positions import resize_positions
from vq.registries import VQFeatureNetworkRegistry, VQTeacherRegistry
from vq.tasks.image_classification.task import ImageClassification
from vq.tasks.terms import terms_of
from vq.teachers.transformer import chosen

CLIP = {'type': 'CLIPTeacher', 'dimension': 12, 'width': 32, 'depth': 3, 'heads': 4, 'image_size': 28}
DINO = {'type': 'DINOv2Teacher', 'dimension': 32, 'depth': 3, 'heads': 4, 'image_size': 28}
LAYERS = ['last', 'penultimate', 0, -1, [2, 0], 'sum_of_last_2']
SIZES = [(28, 28), (42, 70)]


def build(config: dict[str, Any]) -> Any:
    return VQTeacherRegistry.build(config, 'teacher')


def images(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(3)) * 2 - 1


def normalised(image: Tensor, teacher: Any) -> Tensor:
    """As torchvision's Normalize, of values in [0, 1]."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (teacher.MEAN, teacher.STD))
    return ((image + 1) / 2 - mean) / std


def as_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, 1 + h * w, C) -> (B, C, h, w), patch by patch in raster order."""
    rows, columns = height // 14, width // 14
    found = torch.zeros(len(tokens), tokens.shape[2], rows, columns, dtype=tokens.dtype)
    for row in range(rows):
        for column in range(columns):
            found[:, :, row, column] = tokens[:, 1 + row * columns + column]
    return found


def expected_of(layers: Any, blocks: list[Tensor], last: Tensor, height: int, width: int) -> Tensor:
    several: dict[Any, Any] = {
        'last': lambda: last,
        'penultimate': lambda: blocks[-2],
        'sum_of_last_2': lambda: blocks[-1] + blocks[-2],
    }
    if isinstance(layers, list):
        tokens = torch.cat([blocks[number] for number in layers], 2)
    else:
        tokens = blocks[layers] if isinstance(layers, int) else several[layers]()
    return as_map(tokens, height, width)


def assert_close(found: Tensor, expected: Tensor, bf16: bool) -> None:
    assert found.shape == expected.shape
    scale = float(expected.float().abs().max())
    torch.testing.assert_close(found.float(), expected.float(), rtol=0, atol=scale * (0.03 if bf16 else 1e-5))


@pytest.mark.parametrize('bf16', [False, True])
@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_clip_is_that_of_transformers(height: int, width: int, bf16: bool) -> None:
    transformers = pytest.importorskip('transformers')
    teacher, image = build(CLIP), images(height, width)
    settings = dict(hidden_size=32, intermediate_size=128, projection_dim=12, num_hidden_layers=3, num_attention_heads=4)
    peer = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**settings, image_size=28, patch_size=14))
    peer.eval()
    teacher.fill(random_like(peer.state_dict()), 'random')
    peer.load_state_dict(teacher.network.state_dict())
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=bf16):
        output = peer(
            pixel_values=normalised(image, teacher),
            output_hidden_states=True,
            interpolate_pos_encoding=(height, width) != (28, 28),
        )
        blocks, last = list(output.hidden_states[1:]), peer.vision_model.post_layernorm(output.last_hidden_state)
        for layers in LAYERS:
            found = teacher.features(image, layers)
            assert_close(found.patches, expected_of(layers, blocks, last, height, width), bf16)
            assert_close(found.pooled, output.image_embeds, bf16)
            assert found.patches.shape[1] == teacher.channels(layers)
        projected = teacher.features(image, 'projected').patches
        assert_close(projected, as_map(peer.visual_projection(last), height, width), bf16)
    assert (teacher.channels(), teacher.channels('projected'), teacher.dimension, teacher.patch_size) == (32, 12, 12, 14)


@pytest.mark.parametrize('bf16', [False, True])
@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_dinov2_is_that_of_timm(height: int, width: int, bf16: bool) -> None:
    """timm's own forward, of a network built for the size, with positions resized as DINOv2's authors do."""
    timm = pytest.importorskip('timm.models.vision_transformer')
    teacher, image = build(DINO), images(height, width)
    weights = random_like(teacher.network.state_dict())
    teacher.fill(weights, 'random')
    settings = dict(patch_size=14, embed_dim=32, depth=3, num_heads=4, init_values=1e-5, num_classes=0)
    peer = timm.VisionTransformer(img_size=(height, width), **settings).eval()
    peer.load_state_dict({**weights, 'pos_embed': resize_positions(weights['pos_embed'], height // 14, width // 14)})
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=bf16):
        given = normalised(image, teacher)
        last, pairs = peer.forward_intermediates(given, output_fmt='NLC', return_prefix_tokens=True)
        blocks = [torch.cat([prefix, patches], 1) for patches, prefix in pairs]
        for layers in LAYERS:
            found = teacher.features(image, layers)
            assert_close(found.patches, expected_of(layers, blocks, last, height, width), bf16)
            assert_close(found.pooled, last[:, 0], bf16)
            assert found.patches.shape[1] == teacher.channels(layers)
        assert_close(peer(given), last[:, 0], bf16)


def test_dinov2_patches_are_those_of_transformers() -> None:
    """A second package, which reads other names."""
    small = {**DINO, 'depth': 2}
    weights, peer = published_dinov2({**small, 'type': 'DINOv2'})
    teacher, image = build(small), images(28, 28)
    teacher.fill(weights, 'random')
    with torch.no_grad():
        output = peer(normalised(image, teacher))
        found = teacher.features(image)
    assert_close(found.patches, as_map(output.last_hidden_state, 28, 28), False)
    assert_close(found.pooled, output.pooler_output, False)


@pytest.mark.parametrize('layers', ['first', 3, -4, [], [0, 5], 'sum_of_last_0', 'sum_of_last_4', 'projected'])
def test_layers_that_are_not_there_are_refused(layers: Any) -> None:
    with pytest.raises(ConfigError, match='of a network of 3 layers'):
        build(DINO).channels(layers)
    assert chosen([-1, 0], 3) == ((2, 0), False) and chosen('sum_of_last_3', 3) == ((0, 1, 2), True)


@pytest.mark.parametrize('config', [CLIP, DINO])
def test_a_teacher_takes_any_whole_number_of_patches(config: dict[str, Any]) -> None:
    teacher = build(config)
    with pytest.raises(ConfigError, match='patches of 14 pixels and was given images of 28 x 30'):
        teacher.features(images(28, 30))
    image = images(32, 48).requires_grad_()
    target = teacher.target(image, (4, 6))
    assert target.shape == (2, 32, 4, 6) and not target.requires_grad
    resized = torch.nn.functional.interpolate(image.detach(), (56, 84), mode='bicubic', antialias=True).clamp(-1, 1)
    assert torch.equal(target, teacher.features(resized).patches)
    same = images(56, 84)
    assert teacher.resize(same, (4, 6)) is same


@pytest.mark.parametrize('config', [CLIP, DINO])
def test_gradients_reach_the_image_and_no_parameter(config: dict[str, Any]) -> None:
    teacher, image = build(config).train(), images(28, 28).requires_grad_()
    found = teacher.features(image, [0, 2])
    (found.patches.square().mean() + found.pooled.square().mean()).backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert not any(value.requires_grad for value in teacher.parameters()) and not any(m.training for m in teacher.modules())
    assert not any(module._forward_hooks for module in teacher.modules()), 'a hook was left behind'


@pytest.mark.parametrize('name', ['CLIPImages', 'DINOv2'])
def test_one_object_is_feature_network_and_teacher(name: str) -> None:
    """Its pooled vector is that of the metric, of the image that the metric's recipe makes; its files are read once."""
    config = {**(CLIP if name == 'CLIPImages' else DINO), 'type': name}
    network = VQFeatureNetworkRegistry.build(config, 'network')
    network.fill(random_like(network.network.state_dict()), 'random')
    levels = torch.randint(0, 256, (2, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(levels).pooled, network.features(to_float(levels)).pooled, rtol=1e-4, atol=1e-5)
    assert [module for module in network.modules() if isinstance(module, Pretrained)] == [network]


# as an encoder, and as a target


def test_as_an_encoder_it_can_be_probed() -> None:
    teacher = build(DINO)
    encoder = TeacherEncoder(teacher, 'sum_of_last_2', downsampling=8)
    image = images(32, 48)
    assert (encoder.out_channels, encoder.downsampling) == (32, 8) and encoder(image).shape == (2, 32, 4, 6)
    plain = TeacherEncoder(teacher, [0, 1])
    assert (plain.out_channels, plain.downsampling) == (64, 14)
    assert torch.equal(plain(images(28, 28)), teacher.features(images(28, 28), [0, 1]).patches)
    with pytest.raises(ConfigError, match='no whole number of cells of 8 pixels'):
        encoder(images(32, 44))
    task = ImageClassification(encoder, classes=5)
    kept = list(model_state(task))
    assert task.frozen and kept and all(name.startswith('head.') for name in kept), 'no weights of the teacher'


class Distillation(Task):
    """A user's task: a small network learns the patches of a teacher."""

    def __init__(self, network: nn.Module, teacher: Any, losses: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.teacher, self.losses = network, teacher, nn.ModuleDict(losses)
        self.terms = terms_of('Distillation', losses, ('features',))
        self.outputs = Outputs()

    def roots(self) -> dict[str, nn.Module]:
        return {'tokenizer': self.network}

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        image, losses = to_float(batch.image), Losses()
        guess = roots['tokenizer'](image)
        target = self.teacher.target(image, guess.shape[2:])
        for name in self.terms['features']:
            losses.add(name, self.losses[name](guess, target), self.losses[name].weight)
        yield 'tokenizer', losses


def test_as_a_target_it_is_learned_from_and_recorded(tmp_path: Path) -> None:
    teacher = build({**DINO, 'file': str(tmp_path / 'dino.safetensors')})
    save_file(random_like(teacher.network.state_dict()), teacher.file)
    teacher.load_pretrained()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    trainer = build_trainer(
        tmp_path, dict(iters=12), quiet(dict(type='LogCallback', interval=4), dict(type='CheckpointCallback'))
    )
    trainer.model = Distillation(nn.Conv2d(3, 32, 8, 8), teacher, {'align': FeatureDistance()})
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / 'run/log.jsonl').read_text().splitlines()]
    assert lines[-1]['align'] < lines[0]['align'] and lines[-1]['align'] == lines[-1]['total']
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    place = tmp_path / 'run/checkpoints/iter_12'
    assert json.loads((place / 'meta.json').read_text())['frozen_parts'] == {'teacher': [teacher.file]}
    assert sorted(model_state(trainer.model)) == ['network.bias', 'network.weight']
