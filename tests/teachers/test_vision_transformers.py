"""CLIP and DINOv2 as feature networks: the packages' own models and processors on random small weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vq.core.errors import UserError
from vq.nn.positions import resize_positions
from vq.registries import VQFeatureNetworkRegistry

SMALL_CLIP = {'type': 'CLIPImages', 'dimension': 12, 'width': 32, 'depth': 2, 'heads': 4, 'image_size': 28}
SMALL_DINO = {'type': 'DINOv2', 'dimension': 32, 'depth': 2, 'heads': 4, 'image_size': 28}


def build(config):
    return VQFeatureNetworkRegistry.build(config, 'network')


def images(count: int, height: int, width: int) -> Tensor:
    """Smooth images: if rounding of the resize differs at a tie, one grey level has little effect."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    return (F.interpolate(coarse, (height, width), mode='bilinear') * 255).round().to(torch.uint8)


def random_like(state: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(value.shape, generator=draw) for name, value in state.items()}


def in_pillow(image: Tensor) -> list[Image.Image]:
    return [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in image]


def published_dinov2(config) -> tuple[dict[str, Tensor], torch.nn.Module]:
    """Weights in the layout of the published file, and transformers' model with the same weights."""
    transformers = pytest.importorskip('transformers')
    own = build(config)
    weights = random_like(own.network.state_dict())
    peer = transformers.Dinov2Model(
        transformers.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14)
    ).eval()
    # by modules, because parameter names change between versions of the package
    with torch.no_grad():
        embeddings = peer.embeddings
        embeddings.cls_token.copy_(weights['cls_token'])
        embeddings.position_embeddings.copy_(weights['pos_embed'])
        embeddings.patch_embeddings.projection.weight.copy_(weights['patch_embed.proj.weight'])
        embeddings.patch_embeddings.projection.bias.copy_(weights['patch_embed.proj.bias'])
        peer.layernorm.weight.copy_(weights['norm.weight'])
        peer.layernorm.bias.copy_(weights['norm.bias'])
        state = peer.state_dict()
        for index in range(2):
            ours, theirs = f'blocks.{index}.', f'encoder.layer.{index}.'
            for leaf in ('weight', 'bias'):
                for name in ('norm1', 'norm2', 'mlp.fc1', 'mlp.fc2'):
                    state[f'{theirs}{name}.{leaf}'].copy_(weights[f'{ours}{name}.{leaf}'])
                attention = [name for name in state if name.startswith(f'{theirs}attention') and name.endswith(leaf)]
                query, key, value, output = (
                    next(name for name in attention if any(part in name for part in known))
                    for known in (('q_proj', 'query'), ('k_proj', 'key'), ('v_proj', 'value'), ('o_proj', 'output.dense'))
                )
                for name, part in zip((query, key, value), weights[f'{ours}attn.qkv.{leaf}'].chunk(3), strict=True):
                    state[name].copy_(part)
                state[output].copy_(weights[f'{ours}attn.proj.{leaf}'])
            for number in (1, 2):
                state[f'{theirs}layer_scale{number}.lambda1'].copy_(weights[f'{ours}ls{number}.gamma'])
    return weights, peer


def test_dinov2_equals_transformers():
    from torchvision import transforms

    weights, peer = published_dinov2(SMALL_DINO)
    network = build(SMALL_DINO)
    network.fill({**weights, 'mask_token': torch.zeros(1, 32)}, 'random')
    batch = images(3, 61, 40)
    recipe = transforms.Compose(
        [
            transforms.Resize((28, 28), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    given = torch.stack([recipe(image) for image in in_pillow(batch)])
    assert (network.prepare(batch) - given).abs().max() < 1.01 / 255 / 0.224
    with torch.no_grad():
        expected = peer(given).pooler_output
        torch.testing.assert_close(network.run(given).pooled, expected, rtol=1e-4, atol=1e-5)
    assert (network(batch).pooled - expected).abs().max() < 0.02 * expected.abs().max()
    assert network.dimension == 32 and network(batch).logits is None


def test_dinov2_takes_positions_of_another_grid():
    """Position embeddings are resized as in the published network, by the factor 2.1 / 3, and not 2 / 3."""
    positions = torch.randn(1, 10, 32, generator=torch.Generator().manual_seed(0))
    found = resize_positions(positions, 2, 2)
    assert found.shape == (1, 5, 32) and torch.equal(found[:, 0], positions[:, 0])
    a, taps = -0.75, []  # torch's cubic kernel
    for target in range(2):
        place = (target + 0.5) / (2.1 / 3) - 0.5
        row = np.zeros(3)
        for offset in range(-1, 3):
            x = abs(place - (np.floor(place) + offset))
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            row[int(np.clip(np.floor(place) + offset, 0, 2))] += near if x <= 1 else far
        taps.append(row)
    matrix = torch.tensor(np.array(taps), dtype=torch.float32)  # (2, 3)
    expected = torch.einsum('ip,jq,pqd->ijd', matrix, matrix, positions[0, 1:].view(3, 3, 32)).reshape(4, 32)
    torch.testing.assert_close(found[0, 1:], expected, rtol=1e-4, atol=1e-5)
    network = build(SMALL_DINO)
    weights = random_like(network.network.state_dict())
    network.fill({**weights, 'pos_embed': positions}, 'random')
    given = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    small = build(SMALL_DINO)
    small.fill({**weights, 'pos_embed': found}, 'random')
    assert torch.equal(network.run(given).last, small.run(given).last)
    assert torch.equal(network.network.pos_embed, positions), 'the positions of the file are kept'


def test_clip_equals_transformers():
    transformers = pytest.importorskip('transformers')
    sizes = {'hidden_size': 32, 'intermediate_size': 128, 'num_hidden_layers': 2, 'num_attention_heads': 4}
    vision = {**sizes, 'image_size': 28, 'patch_size': 14}
    text = {**sizes, 'vocab_size': 20}
    peer = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()
    peer.load_state_dict(random_like(peer.state_dict()) | {k: v for k, v in peer.state_dict().items() if 'position_ids' in k})
    network = build(SMALL_CLIP)
    old = {'vision_model.embeddings.position_ids': torch.arange(5)[None]}  # files of older versions hold it
    network.fill({**peer.state_dict(), **old}, 'the whole of CLIP')
    batch = images(3, 61, 40)
    processor = transformers.CLIPImageProcessor(do_resize=False, do_center_crop=False)
    squares = [image.crop((0, 10, 40, 50)).resize((28, 28), Image.Resampling.BICUBIC) for image in in_pillow(batch)]
    given = processor(images=squares, return_tensors='pt')['pixel_values']
    assert (network.prepare(batch) - given).abs().max() < 1.01 / 255 / 0.26
    with torch.no_grad():
        hidden = peer.vision_model(pixel_values=given).pooler_output
        expected = peer.visual_projection(hidden)
        torch.testing.assert_close(network.run(given).pooled, expected, rtol=1e-4, atol=1e-5)
    assert (network(batch).pooled - expected).abs().max() < 0.02 * expected.abs().max()
    assert network.dimension == 12 and network(batch).logits is None


@pytest.mark.parametrize('config', [SMALL_CLIP, SMALL_DINO])
def test_both_are_frozen_named_and_strict(config):
    network = build(config)
    assert not any(parameter.requires_grad for parameter in network.parameters()) and not network.train().training
    assert set(network.description) == {'network', 'preprocessing', 'precision'} and '28 x 28' in str(network.description)
    with pytest.raises(UserError, match='is not the'):
        network.fill({'norm.weight': torch.zeros(3)}, 'some.pth')
    for image in (torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.uint8)):
        with pytest.raises(UserError, match='uint8 images'):
            network(image)
    with pytest.raises(UserError, match='divides'):
        build({**config, 'image_size': 30})
    with torch.device('meta'):
        assert next(build(config).parameters()).is_meta


@pytest.mark.parametrize('config', [SMALL_CLIP, SMALL_DINO])
def test_files_are_looked_for_and_read(config, tmp_path, monkeypatch):
    monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path))
    network = build(config)
    with pytest.raises(UserError, match='prepare_checkpoints'):
        network.load_pretrained()
    module = network.network
    weights = random_like(module.state_dict())
    (file,) = network.pretrained_files()
    file.parent.mkdir(parents=True)
    torch.save(weights, file)
    network.load_pretrained()
    name, value = next(iter(weights.items()))
    assert torch.equal(module.state_dict()[name], value)
