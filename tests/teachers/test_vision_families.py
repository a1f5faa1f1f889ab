"""DINO, DINOv2 with registers, MAE, torchvision's ViT and ConvNeXt, BEiT v2: against the networks of other packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.teachers.families import CONVNEXT, FAMILIES, SIDE, VITS, Peer, Said, beit_table, peer_of
from tests.teachers.test_teachers import assert_close, build, images, normalised
from vq.core.errors import ConfigError, UserError
from vq.teachers.images import TeacherImages
from vq.teachers.relative_positions import position_index, resize_bias

LAYERS = ['last', 'penultimate', [2, 0], 'sum_of_last_2']


def filled(family: str, height: int = SIDE, width: int = SIDE) -> tuple[Any, Peer]:
    """A teacher that read the peer's weights, in the authors' names."""
    teacher, peer = build(FAMILIES[family]), peer_of(family, height, width)
    teacher.fill(peer.published, 'random')
    return teacher, peer


def as_map(tokens: Tensor, prefix: int, rows: int, columns: int) -> Tensor:
    """(B, prefix + h * w, C) -> (B, C, h, w), patch by patch in raster order."""
    assert tokens.shape[1] == prefix + rows * columns
    lines = [torch.stack([tokens[:, prefix + row * columns + at] for at in range(columns)], -1) for row in range(rows)]
    return torch.stack(lines, -2)


def expected(layers: Any, said: Said) -> Tensor:
    if isinstance(layers, list):
        return torch.cat([said.blocks[number] for number in layers], 2)
    return {'last': said.last, 'penultimate': said.blocks[-2], 'sum_of_last_2': said.blocks[-1] + said.blocks[-2]}[layers]


@pytest.mark.parametrize('bf16', [False, True])
@pytest.mark.parametrize('other', [False, True], ids=['native', 'other'])
@pytest.mark.parametrize('family', FAMILIES)
def test_teacher_is_the_network_of_its_package(family: str, other: bool, bf16: bool) -> None:
    wide = 96 if family in ('vit', 'beit2') else 160  # the packages' networks of these take squares
    height, width = (96, wide) if other else (SIDE, SIDE)
    teacher, peer = filled(family, height, width)
    image = images(height, width)
    rows, columns = height // teacher.patch_size, width // teacher.patch_size
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=bf16):
        said = peer.says(normalised(image, teacher))
        for layers in LAYERS:
            found = teacher.features(image, layers)
            assert_close(found.patches, as_map(expected(layers, said), peer.prefix, rows, columns), bf16)
            assert_close(found.pooled, said.pooled, bf16)
            assert found.patches.shape[1] == teacher.channels(layers)
    assert (teacher.width, teacher.dimension, teacher.depth) == (32, 32, 3)


@pytest.mark.parametrize('family', VITS)
def test_class_token_and_registers_are_not_in_the_map(family: str) -> None:
    """Blocks that add nothing leave every token as it came in: a patch is its pixels and its position."""
    teacher, _ = filled(family)
    network, image = teacher.network, images(SIDE, SIDE)
    for block in network.blocks:
        for layer in (block.attn.proj, block.mlp.fc2):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    patches = network.patch_embed.proj(normalised(image, teacher))
    if family != 'beit2':
        assert network.pos_embed.shape[1] == 17
        patches = patches + network.pos_embed[:, 1:].transpose(1, 2).reshape(1, -1, 4, 4)
    found = teacher.features(image, 0).patches
    torch.testing.assert_close(found, patches)
    for token in (network.cls_token, *network.get_parameter('reg_token').split(1, 1)) if teacher.prefix > 1 else ():
        assert not any(torch.allclose(cell, token[0, 0]) for cell in found.flatten(2).transpose(1, 2).flatten(0, 1))


@pytest.mark.parametrize('family', FAMILIES)
def test_leftovers_on_either_side_are_an_error(family: str) -> None:
    teacher, peer = build(FAMILIES[family]), peer_of(family, SIDE, SIDE)
    first = next(name for name in peer.published if name.endswith('bias'))
    for odd in (
        {**peer.published, 'blocks.0.of_another': torch.zeros(3)},
        {name: value for name, value in peer.published.items() if name != first},
        {**peer.published, first: torch.zeros(7)},
    ):
        with pytest.raises(UserError, match=f'random is not the {type(teacher).__name__}'):
            teacher.fill(odd, 'random')
    teacher.fill(peer.published, 'random')


def test_a_convnext_gives_larger_maps() -> None:
    """7 x 7 cells of 32 pixels as 14 x 14: each corner cell keeps its value, and the mean of the map stays."""
    teacher, peer = filled('convnext')
    larger = build({**CONVNEXT, 'upsample': 2})
    larger.fill(peer.published, 'random')
    image = images(224, 224)
    plain, found = teacher.features(image), larger.features(image)
    assert (plain.patches.shape[-2:], found.patches.shape[-2:]) == ((7, 7), (14, 14)) and larger.patch_size == 16
    corners = (..., slice(None, None, 13), slice(None, None, 13)), (..., slice(None, None, 6), slice(None, None, 6))
    torch.testing.assert_close(found.patches[corners[0]], plain.patches[corners[1]])
    torch.testing.assert_close(found.patches.mean((2, 3)), plain.patches.mean((2, 3)))
    assert torch.equal(found.pooled, plain.pooled)
    assert larger.target(image, (4, 6)).shape == (2, 32, 4, 6)
    with pytest.raises(ConfigError, match='cells of 32 pixels and was given images of 80 x 96'):
        larger.target(image, (5, 6))


@pytest.mark.parametrize('wanted', [(4, 4), (2, 3), (4, 9), (12, 5)])
def test_biases_are_interpolated_as_by_scipy(wanted: tuple[int, int]) -> None:
    table = torch.randn(7 * 7 + 3, 2, generator=torch.Generator().manual_seed(1))
    found = resize_bias(table, (4, 4), wanted)
    assert found.shape == ((2 * wanted[0] - 1) * (2 * wanted[1] - 1) + 3, 2)
    if wanted != (4, 9):  # the authors know squares only; here an axis of the same length stays
        torch.testing.assert_close(found, beit_table(table, 4, *wanted), rtol=1e-4, atol=1e-4)
    else:
        kept = found[:-3].view(7, 17, 2)[:, 8]  # no offset across
        torch.testing.assert_close(kept, table[:-3].view(7, 7, 2)[:, 3], rtol=1e-5, atol=1e-5)


def test_pairs_of_tokens_have_the_rows_that_they_have_in_timm() -> None:
    timm = pytest.importorskip('timm.models.beit')
    assert torch.equal(position_index(3, 5, torch.device('cpu')), timm.gen_relative_position_index((3, 5)))


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({**VITS['beit2'], 'image_size': 32}, 'BEiT2Teacher with images of 32 pixels'),
        ({**CONVNEXT, 'dims': (8, 16, 32)}, '3 dims, 4 depths'),
        ({**CONVNEXT, 'upsample': 3}, 'upsample 3'),
    ],
)
def test_sizes_that_do_not_fit_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(config)


@pytest.mark.slow
@pytest.mark.parametrize('family', FAMILIES)
def test_they_are_built_without_memory_and_give_no_gradient_to_their_parameters(family: str) -> None:
    with torch.device('meta'):
        shape = build(FAMILIES[family]).features(torch.zeros(1, 3, 96, 64)).patches.shape
    teacher, image = build(FAMILIES[family]), images(96, 64).requires_grad_()
    found = teacher.features(image)
    assert found.patches.shape == (2, *shape[1:])
    (found.patches.square().mean() + found.pooled.square().mean()).backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert not any(value.requires_grad for value in teacher.parameters())


# as feature networks of metrics


@pytest.mark.parametrize('family', ['dinov2_registers', 'convnext'])
def test_a_feature_network_gives_the_pooled_vectors_of_images_that_pillow_resized(family: str, tmp_path: Path) -> None:
    teacher, peer = filled(family)
    network = TeacherImages(teacher, SIDE)
    levels = (images(80, 50) + 1).mul(127.5).round().to(torch.uint8)
    with torch.autocast('cpu', torch.bfloat16):
        found = network(levels)
    pillow = [Image.fromarray(one.permute(1, 2, 0).numpy()).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for one in levels]
    given = torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) for one in pillow]).float() / 127.5 - 1
    with torch.no_grad():
        expected = peer.says(normalised(given, teacher)).pooled
    assert found.logits is None and found.pooled.dtype == torch.float32 and network.dimension == 32
    assert (found.pooled - expected).abs().max() < 0.02 * expected.abs().max()
    teacher.file = str(tmp_path / 'weights.pth')
    torch.save(peer.published, teacher.file)
    other = TeacherImages(build({**FAMILIES[family], 'file': teacher.file}), SIDE)
    other.load_pretrained()
    assert torch.equal(other(levels).pooled, network(levels).pooled) and other.pretrained_files() == [Path(teacher.file)]
    assert type(teacher).__name__ in network.description['network'] and not network.train().training
    with pytest.raises(ConfigError, match=r'was given torch\.float32'):
        network(levels.float())
