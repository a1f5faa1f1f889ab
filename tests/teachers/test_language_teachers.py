"""OpenCLIP, EVA-CLIP and SigLIP against the networks of their packages: layers, patches, pooled vectors, sizes, keys."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.teachers.test_teachers import LAYERS, SIZES, as_map, assert_close, build, expected_of, images, normalised
from tests.teachers.test_vision_transformers import random_like
from vq.core.errors import ConfigError, UserError
from vq.recipes.teachers import TEACHERS
from vq.teachers.keys.eva import eva_keys

SIZE = {'depth': 3, 'heads': 4, 'image_size': 28, 'patch_size': 14}
OPENCLIP = {'type': 'OpenCLIPTeacher', 'dimension': 12, 'width': 32, 'mlp_ratio': 2.5, **SIZE}
EVA = {'type': 'EVACLIPTeacher', 'dimension': 12, 'width': 32, 'rotary_cells': 3, **SIZE}
SIGLIP = {'type': 'SigLIPTeacher', 'dimension': 32, 'hidden': 50, **SIZE}
CLIP = {'type': 'CLIPTeacher', 'dimension': 12, 'width': 32, **SIZE}
NEEDS = {
    'OpenCLIPTeacher': 'open_clip',
    'EVACLIPTeacher': 'timm',
    'SigLIPTeacher': 'transformers',
    'CLIPTeacher': 'transformers',
}


class Expected(NamedTuple):
    """Tokens (B, 1 + h * w, C) of a package's own forward."""

    blocks: list[Tensor]
    last: Tensor
    pooled: Tensor
    projected: Tensor | None


def made(config: dict[str, Any]) -> Any:
    pytest.importorskip(NEEDS.get(config['type'], 'transformers'))
    return build(config)


@contextmanager
def outputs_of(modules: Any) -> Iterator[list[Tensor]]:
    found: list[Tensor] = []
    hooks = [module.register_forward_hook(lambda module, inputs, output: found.append(output)) for module in modules]
    yield found
    for hook in hooks:
        hook.remove()


def open_clip_model(size: tuple[int, int], activation: str = 'gelu') -> Any:
    model = pytest.importorskip('open_clip.model')
    vision = model.CLIPVisionCfg(layers=3, width=32, head_width=8, mlp_ratio=2.5, patch_size=14, image_size=size)
    text = model.CLIPTextCfg(context_length=6, vocab_size=20, width=8, heads=2, layers=1)
    return model.CLIP(12, vision, text, quick_gelu=activation == 'quick_gelu').eval()


def of_open_clip(teacher: Any, given: Tensor, size: tuple[int, int]) -> Expected:
    """The model of the package, with positions resized as the package does when it loads a file."""
    peer = open_clip_model(size, teacher.activation)
    state = {f'visual.{name}': value for name, value in teacher.network.state_dict().items()}
    sys.modules['open_clip.model'].resize_pos_embed(state, peer)
    peer.load_state_dict({**peer.state_dict(), **state})
    pooled = peer.encode_image(given)
    peer.visual.output_tokens = True
    with outputs_of(peer.visual.transformer.resblocks) as blocks:
        _, patches = peer.visual(given)
    last = torch.cat([patches[:, :1], patches], 1)
    return Expected(blocks, last, pooled, last @ peer.visual.proj)


def cubic(old: int, new: int) -> Tensor:
    """(new, old): torch's cubic kernel, a = -0.75, at the centres of cells."""
    a, rows = -0.75, np.zeros((new, old))
    for target in range(new):
        place = (target + 0.5) * old / new - 0.5
        for cell in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            x = abs(place - cell)
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            rows[target, min(max(cell, 0), old - 1)] += near if x <= 1 else far
    return torch.tensor(rows, dtype=torch.float32)


def of_timm(teacher: Any, given: Tensor, size: tuple[int, int]) -> Expected:
    """timm's network, built for the size, with the authors' positions."""
    eva = pytest.importorskip('timm.models.eva')
    settings = dict(patch_size=14, num_classes=12, embed_dim=32, depth=3, num_heads=4, mlp_ratio=4 * 2 / 3, qkv_fused=False)
    inner = dict(swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True, use_rot_pos_emb=True, ref_feat_shape=(3, 3))
    peer = eva.Eva(img_size=size, global_pool='token', **settings, **inner).eval()
    state = teacher.network.state_dict()
    height, width = (side // 14 for side in size)
    plane = state['pos_embed'][0, 1:].view(2, 2, 32)
    moved = torch.einsum('ip,jq,pqd->ijd', cubic(2, height), cubic(2, width), plane).reshape(1, -1, 32)
    peer.load_state_dict({**state, 'pos_embed': torch.cat([state['pos_embed'][:, :1], moved], 1)})
    with outputs_of(peer.blocks) as blocks:
        last = peer.forward_features(given)
    return Expected(list(blocks), last, peer(given), peer.head(last))


def of_transformers(teacher: Any, given: Tensor, size: tuple[int, int]) -> Expected:
    """transformers' model, with the positions of the authors' ``scipy.ndimage.zoom``."""
    transformers = pytest.importorskip('transformers')
    from scipy.ndimage import zoom

    settings = dict(hidden_size=32, intermediate_size=50, num_hidden_layers=3, num_attention_heads=4)
    model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**settings, image_size=28, patch_size=14)).eval()
    peer = getattr(model, 'vision_model', model)
    peer.load_state_dict(teacher.network.state_dict())
    grid = peer.embeddings.position_embedding.weight.detach().view(2, 2, 32).numpy()
    moved = zoom(grid, (size[0] / 28, size[1] / 28, 1), order=1).reshape(1, -1, 32)
    peer.embeddings.interpolate_pos_encoding = lambda embeddings, height, width: torch.from_numpy(moved)
    with outputs_of(peer.encoder.layers) as blocks:
        output = model(pixel_values=given, interpolate_pos_encoding=True)
    dummy = torch.full((len(given), 1, 32), torch.nan)  # as_map leaves out a class token
    blocks = [torch.cat([dummy.to(block.dtype), block], 1) for block in blocks]
    last = output.last_hidden_state
    return Expected(blocks, torch.cat([dummy.to(last.dtype), last], 1), output.pooler_output, None)


PEERS: list[tuple[dict[str, Any], Callable[[Any, Tensor, tuple[int, int]], Expected]]] = [
    (OPENCLIP, of_open_clip),
    ({**OPENCLIP, 'activation': 'quick_gelu', 'normalisation': 'inception'}, of_open_clip),
    (EVA, of_timm),
    (SIGLIP, of_transformers),
]


@pytest.mark.parametrize('bf16', [False, True])
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(('config', 'peer'), PEERS, ids=['openclip', 'quick_gelu', 'eva', 'siglip'])
def test_features_are_those_of_the_package(config: dict[str, Any], peer: Any, size: tuple[int, int], bf16: bool) -> None:
    teacher, image = made(config), images(*size)
    teacher.fill(random_like(teacher.network.state_dict()), 'random')
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=bf16):
        expected = peer(teacher, normalised(image, teacher), size)
        for layers in LAYERS:
            found = teacher.features(image, layers)
            assert_close(found.patches, expected_of(layers, expected.blocks, expected.last, *size), bf16)
            assert_close(found.pooled, expected.pooled, bf16)
            assert found.patches.shape[1] == teacher.channels(layers)
        if expected.projected is not None:
            assert_close(teacher.features(image, 'projected').patches, as_map(expected.projected, *size), bf16)
            assert teacher.channels('projected') == teacher.dimension == 12
    assert (teacher.width, teacher.patch_size, teacher.depth) == (32, 14, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'network', 'millions'),
    [
        ('openclip_b16', 'ViT-B-16', 86.19),
        ('openclip_l14', 'ViT-L-14', 303.97),
        ('openclip_h14', 'ViT-H-14', 632.08),
        ('openclip_bigg14', 'ViT-bigG-14', 1844.91),
        ('eva', 'EVA02-B-16', 86.26),
        ('siglip', 'ViT-B-16-SigLIP', None),
        ('clip', 'ViT-B-16-quickgelu', 86.19),
        ('clip_l14', 'ViT-L-14-quickgelu', 303.97),
    ],
)
def test_published_networks_have_the_shapes_of_open_clip(name: str, network: str, millions: float | None) -> None:
    """Its own configs and builder; sizes as in its table of networks (model_profile.csv)."""
    open_clip = pytest.importorskip('open_clip')
    config = open_clip.get_model_config(network)
    with torch.device('meta'):
        teacher = made(dict(TEACHERS[name].part))
        peer = sys.modules['open_clip.model']._build_vision_tower(config['embed_dim'], config['vision_cfg'])
    shapes = {key: value.shape for key, value in teacher.network.state_dict().items()}
    assert teacher.dimension == config['embed_dim']
    if name == 'siglip':  # whose networks there are timm's: the same numbers under other names
        assert sum(map(torch.Size.numel, shapes.values())) == sum(value.numel() for value in peer.parameters())
        return
    published = {f'visual.{key}': value for key, value in peer.state_dict().items()}
    renamed = teacher.renamed(published)
    assert {key: value.shape for key, value in renamed.items()} == shapes
    assert sum(value.numel() for value in peer.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_siglip_has_no_projection() -> None:
    with pytest.raises(ConfigError, match='of a network of 3 layers'):
        made(SIGLIP).features(images(28, 28), 'projected')


MIXING = {'OpenCLIPTeacher': 'attn.out_proj.', 'EVACLIPTeacher': 'attn.proj.'}  # what attention gives a token of the others


@pytest.mark.parametrize('config', [CLIP, OPENCLIP, EVA, SIGLIP], ids=lambda config: config['type'])
def test_a_cell_of_the_map_is_its_patch_and_no_other_token(config: dict[str, Any]) -> None:
    """Without attention tokens do not mix: a patch changes its cell alone, and the class token changes none."""
    teacher, image = made(config), images(42, 70)
    teacher.fill(random_like(teacher.network.state_dict()), 'random')
    mixing = MIXING.get(config['type'], 'self_attn.out_proj.')
    silenced = [value.zero_() for name, value in teacher.network.state_dict().items() if mixing in name]
    assert len(silenced) == 2 * teacher.depth
    layers: list[Any] = ['last', 'penultimate', 'projected'][: 2 if config is SIGLIP else 3]
    before = [teacher.features(image, layer).patches for layer in layers]
    for row, column in ((0, 0), (1, 3), (2, 4)):
        other = image.clone()
        other[:, :, 14 * row : 14 * (row + 1), 14 * column : 14 * (column + 1)] = 0.3
        for layer, whole in zip(layers, before, strict=True):
            changed = (teacher.features(other, layer).patches - whole).abs().amax((0, 1)) > 1e-6
            assert changed.nonzero().tolist() == [[row, column]], layer
    for name, value in teacher.network.state_dict().items():
        if 'class_embedding' in name or 'cls_token' in name:
            value.add_(1)
            assert config is not SIGLIP
    assert all(torch.equal(teacher.features(image, layer).patches, one) for layer, one in zip(layers, before, strict=True))


@pytest.mark.parametrize('config', [OPENCLIP, EVA, SIGLIP], ids=lambda config: config['type'])
def test_gradients_reach_the_image_and_no_parameter(config: dict[str, Any]) -> None:
    teacher, image = made(config).train(), images(28, 42).requires_grad_()
    found = teacher.features(image, [0, 2])
    (found.patches.square().mean() + found.pooled.square().mean()).backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert not any(value.requires_grad for value in teacher.parameters()) and not any(m.training for m in teacher.modules())
    target = teacher.target(images(32, 48), (4, 6))
    assert target.shape == (2, 32, 4, 6) and not target.requires_grad


def test_a_file_of_open_clip_gives_its_features(tmp_path: Path) -> None:
    """A whole model, with its text half, as safetensors; and with the text half under ``text``."""
    made(OPENCLIP)
    peer, file = open_clip_model((28, 28)), str(tmp_path / 'open_clip_model.safetensors')
    peer.load_state_dict(random_like(peer.state_dict()))
    save_file(peer.state_dict(), file)
    teacher, image = build({**OPENCLIP, 'file': file}), images(28, 28)
    teacher.load_pretrained()
    with torch.no_grad():
        assert_close(teacher.features(image).pooled, peer.encode_image(normalised(image, teacher)), False)
    visual = {name: value for name, value in peer.state_dict().items() if name.startswith('visual.')}
    teacher.fill({**visual, 'text.ln_final.weight': torch.zeros(8), 'logit_scale': torch.zeros(())}, 'a custom text half')
    refused(teacher, visual, 'visual.ln_post.bias', 'ln_post.bias')


def refused(teacher: Any, state: dict[str, Tensor], lacking: str, named: str) -> None:
    """Neither a missing key nor one left over is passed over."""
    for odd, name in (
        ({key: value for key, value in state.items() if key != lacking}, named),
        ({**state, 'visual.extra': torch.zeros(2)}, '(visual.)?extra'),
        ({**state, 'extra.more': torch.zeros(2)}, 'extra.more'),
    ):
        with pytest.raises(UserError, match=rf'is not the {type(teacher).__name__}.*\n.*shape: {name}\n'):
            teacher.fill(odd, 'a file')


def by_its_authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's names -> those of EVA's authors, with the rotary tables that their files have."""
    words = {
        'attn.q_proj.bias': 'attn.q_bias',
        'attn.v_proj.bias': 'attn.v_bias',
        'attn.norm.': 'attn.inner_attn_ln.',
        'mlp.norm.': 'mlp.ffn_ln.',
        'mlp.fc1_g.': 'mlp.w1.',
        'mlp.fc1_x.': 'mlp.w2.',
        'mlp.fc2.': 'mlp.w3.',
    }
    found = {}
    for name, value in state.items():
        for ours, theirs in words.items():
            name = name.replace(ours, theirs)
        found[f'visual.{name}'] = value
    tables = ('visual.rope.freqs_cos', 'visual.rope.freqs_sin', 'visual.blocks.0.attn.rope.freqs_cos')
    text = ('text.transformer.resblocks.0.ln_1.weight', 'text.positional_embedding', 'logit_scale')
    return {**found, **dict.fromkeys((*tables, *text), torch.zeros(3))}


def test_files_of_eva_by_its_authors_and_by_open_clip() -> None:
    teacher = made(EVA)
    state = random_like(teacher.network.state_dict())
    authors, network = by_its_authors(state), teacher.network
    converted = pytest.importorskip('timm.models.eva').checkpoint_filter_fn(authors, network)
    openclip = {f'visual.trunk.{name}': value for name, value in state.items()} | {'text.ln_final.bias': torch.zeros(3)}
    for published in (authors, openclip):
        found = eva_keys(published)
        assert sorted(found) == sorted(converted) and all(torch.equal(found[name], converted[name]) for name in found)
        teacher.fill(published, 'a file')
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    refused(teacher, authors, 'visual.blocks.2.mlp.ffn_ln.bias', 'blocks.2.mlp.norm.bias')
    refused(teacher, openclip, 'visual.trunk.head.bias', 'head.bias')


def test_a_file_of_siglip_gives_its_features(tmp_path: Path) -> None:
    transformers = pytest.importorskip('transformers')
    sizes = dict(hidden_size=32, intermediate_size=50, num_hidden_layers=3, num_attention_heads=4)
    vision, text = {**sizes, 'image_size': 28, 'patch_size': 14}, {**sizes, 'vocab_size': 20, 'projection_size': 32}
    peer = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text)).eval()
    peer.load_state_dict(random_like(peer.state_dict()))
    file, image = str(tmp_path / 'model.safetensors'), images(28, 28)
    save_file(peer.state_dict(), file)
    teacher = build({**SIGLIP, 'file': file})
    teacher.load_pretrained()
    with torch.no_grad():
        expected = peer.vision_model(pixel_values=normalised(image, teacher))
    found = teacher.features(image)
    assert_close(found.pooled, expected.pooler_output, False)
    assert_close(found.patches, expected.last_hidden_state.transpose(1, 2).reshape(2, 32, 2, 2), False)
    state = {name: value for name, value in peer.state_dict().items() if not name.startswith('text_model.')}
    refused(teacher, state, 'vision_model.head.probe', 'head.probe')


@pytest.mark.parametrize(
    ('config', 'package', 'extra'),
    [(OPENCLIP, 'open_clip', 'openclip'), (EVA, 'timm', 'features'), (SIGLIP, 'transformers', 'features')],
)
def test_without_its_package_the_error_names_the_extra(
    config: dict[str, Any], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition('.')[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf'needs the package {package}.*\n.*vq\[{extra}\]'):
        build(config)
