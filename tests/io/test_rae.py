"""Representation autoencoders of other projects: the published decoders in, diffusers' layout out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import vq
from tests.published import read_golden, read_manifest
from vq.assembly.matching import fit
from vq.cli.convert import convert_file
from vq.cli.export import main as export
from vq.core.errors import UserError
from vq.io.published import diffusers_rae, rae_decoder
from vq.nn.sine_positions import sine_grid
from vq.registries import VQTeacherRegistry


def state_of(name: str) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device='meta') for key, shape in read_manifest(name)['tensors'].items()}


@pytest.mark.parametrize(('name', 'heads'), [('vitb', 12), ('vitxl', 16)])
def test_every_tensor_of_the_published_decoders_maps(name: str, heads: int) -> None:
    manifest = read_manifest(f'rae_decoder_{name}_dinov2b')
    theirs, state = manifest['config'], state_of(f'rae_decoder_{name}_dinov2b')
    converted = rae_decoder.convert(state)
    shapes = {key: tuple(value.shape) for key, value in converted.tensors.items()}
    model: Any = fit(converted.tokenizer, shapes, name)  # strict both ways
    decoder = converted.tokenizer['decoder']
    assert (decoder['dim'], decoder['depth'], decoder['heads']) == (
        *(theirs['decoder_hidden_size'], theirs['decoder_layers']),
        heads,
    )
    assert theirs['heads'] == heads and theirs['mlp'] == model.decoder.blocks[0].mlp_in.out_features
    assert model.spec((256, 256)).latent.shape == (theirs['latent_dim'], 16, 16) and converted.image_size == 256
    assert [key for keys in converted.dropped.values() for key in keys] == ['decoder_pos_embed']
    positions = 257 * theirs['decoder_hidden_size']
    own = sum(value.numel() for key, value in model.state_dict().items() if key.startswith('decoder.'))
    assert own == manifest['params'] - positions
    teacher = model.encoder.teacher
    assert (teacher.width, teacher.patch_size, teacher.prefix, teacher.file) == (
        *(768, 14, 5),
        'dinov2/dinov2_vitb14_reg4_pretrain.pth',
    )


def small(width: int = 384, seed: int = 0) -> dict[str, Tensor]:
    """A decoder of one block for DINOv2-S, 16 x 16 cells of 16 pixels."""
    sizes, noise = {768: 64, 3072: 128}, torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in read_manifest('rae_decoder_vitb_dinov2b')['tensors'].items():
        if '_layers.' not in key or '_layers.0.' in key:
            lengths = [sizes.get(length, length) for length in shape]
            if key.startswith('decoder_pred'):
                lengths[0] = 768
            if key == 'decoder_embed.weight':
                lengths[1] = width
            state[key] = 0.1 * torch.randn(lengths, generator=noise)
    return state | {'decoder_pos_embed': torch.cat([torch.zeros(1, 64), sine_grid(16, 16, 64)])[None]}


def teacher_file(root: Path, depth: int = 12) -> None:
    """Random weights of DINOv2-S with registers, with the published names."""
    config = rae_decoder.teacher('dinov2', 384)
    with torch.device('meta'):
        built: Any = VQTeacherRegistry.build(config)
    noise = torch.Generator().manual_seed(1)
    given = {name: torch.randn(value.shape, generator=noise) * 0.02 for name, value in built.network.state_dict().items()}
    given['pos_embed'] = torch.randn(1, 1 + 37 * 37, 384, generator=noise) * 0.02
    given['register_tokens'], given['mask_token'] = given.pop('reg_token'), torch.zeros(1, 384)
    path = root / config['file']
    path.parent.mkdir(parents=True)
    torch.save(given, path)


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted decoder with statistics, and the file of its encoder."""
    home = tmp_path_factory.mktemp('rae')
    teacher_file(home / 'pretrained')
    torch.save(small(), home / 'model.pt')
    noise = torch.Generator().manual_seed(2)
    statistics = {'mean': torch.randn(384, 16, 16, generator=noise), 'var': torch.rand(384, 16, 16, generator=noise) + 0.5}
    torch.save(statistics, home / 'stat.pt')
    options = dict(statistics=str(home / 'stat.pt'), heads=4)
    said = dict(convert_file('rae_decoder', home / 'model.pt', options, home / 'rae.converted'))
    assert said['latent'] == '384 x 16 x 16 per image of 256 pixels, continuous (RepresentationAutoencoder)'
    return home


def images() -> Tensor:
    return torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.fixture
def loaded(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv('VQ_PRETRAINED', str(home / 'pretrained'))
    return vq.load(home / 'rae.converted')


@pytest.mark.slow
def test_a_converted_decoder_reads_its_encoder(home: Path, loaded: Any) -> None:
    model, file = loaded.model, torch.load(home / 'pretrained/dinov2/dinov2_vits14_reg4_pretrain.pth', weights_only=True)
    assert torch.equal(model.encoder.teacher.network.cls_token, file['cls_token'])
    statistics = torch.load(home / 'stat.pt', weights_only=True)
    z = model.encode(images()).mean
    seen = (z - statistics['mean']) / (statistics['var'] + 1e-5).sqrt()
    torch.testing.assert_close(model.normalize(z), seen)
    assert loaded.reconstruct(images(), value_range='-1..1').shape == (2, 3, 256, 256)


@pytest.mark.slow
def test_diffusers_gives_the_same_latents_and_images(home: Path, loaded: Any, tmp_path: Path) -> None:
    import diffusers

    assert export([str(home / 'rae.converted'), str(tmp_path / 'out')]) == 0
    theirs = diffusers.AutoencoderRAE.from_pretrained(tmp_path / 'out').eval()
    tensors = load_file(tmp_path / 'out/diffusion_pytorch_model.safetensors')
    assert {key: value.shape for key, value in theirs.state_dict().items()} == {key: v.shape for key, v in tensors.items()}
    with torch.no_grad():
        z = loaded.model.normalize(loaded.model.encode(images()).mean)
        expected = theirs.encode((images() + 1) / 2).latent
        torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)
        made = loaded.model.decode(loaded.model.denormalize(expected))
        torch.testing.assert_close((made + 1) / 2, theirs.decode(expected).sample, rtol=1e-4, atol=1e-5)


def describes(home: Path) -> dict[str, Any]:
    from vq.io.published.about import read_about

    return read_about(home / 'rae.converted').tokenizer


@pytest.mark.slow
def test_the_exported_layout(home: Path, loaded: Any) -> None:
    """The names of AutoencoderRAE of diffusers 0.42 with transformers 5.24, as its state dict lists them."""
    settings, tensors = diffusers_rae.exported(describes(home), loaded.model.state_dict(), 256)
    names = {key.replace('encoder.layer.0.', '#.') for key in tensors if '.layer.' not in key or '.layer.0.' in key}
    block = [f'attention.{part}_proj' for part in 'qkvo'] + ['norm1', 'norm2', 'mlp.fc1', 'mlp.fc2']
    layer = [f'attention.{part}' for part in ('to_q', 'to_k', 'to_v', 'to_out.0')]
    layer += ['intermediate.dense', 'output.dense', 'layernorm_before', 'layernorm_after']
    leaves = [f'encoder.#.{name}' for name in block] + [f'decoder.decoder_layers.0.{name}' for name in layer]
    leaves += ['decoder.decoder_embed', 'decoder.decoder_norm', 'decoder.decoder_pred']
    leaves += ['encoder.embeddings.patch_embeddings.projection']
    expected = {f'{name}.{leaf}' for name in leaves for leaf in ('weight', 'bias')}
    expected |= {f'encoder.#.layer_scale{number}.lambda1' for number in (1, 2)}
    tokens = ('cls_token', 'register_tokens', 'position_embeddings', 'mask_token')
    expected |= {f'encoder.embeddings.{name}' for name in tokens} | {'decoder.trainable_cls_token'}
    assert names == expected | {'encoder_mean', 'encoder_std', '_latents_mean', '_latents_std'}
    sizes = ('encoder_input_size', 'image_size', 'decoder_intermediate_size', 'decoder_num_attention_heads')
    assert [settings[name] for name in sizes] == [224, 256, 128, 4] and settings['noise_tau'] == 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    ('place', 'change', 'words'),
    [
        ('encoder', dict(layers='last'), 'encoder.layers is last'),
        ('encoder', dict(teacher=dict(type='MAETeacher')), 'encoder.teacher is a MAETeacher'),
        ('decoder', dict(grid=4), 'positions are of 4 x 4 cells'),
        ('decoder', dict(type='ViTDecoder'), 'decoder is a ViTDecoder'),
    ],
)
def test_what_has_no_such_layout(home: Path, loaded: Any, place: str, change: dict[str, Any], words: str) -> None:
    config = describes(home)
    with pytest.raises(UserError, match=words):
        diffusers_rae.exported({**config, place: {**config[place], **change}}, loaded.model.state_dict(), 256)


def test_files_that_are_no_such_decoder() -> None:
    with pytest.raises(UserError, match='keys are unknown'):
        rae_decoder.convert({**small(), 'odd': torch.zeros(1)})
    with pytest.raises(UserError, match='are not the sines and cosines of a 16 x 16 grid'):
        rae_decoder.convert({**small(), 'decoder_pos_embed': torch.ones(1, 257, 64)})
    with pytest.raises(UserError, match='takes 200 channels, and no published encoder dinov2'):
        rae_decoder.convert(small(200))
    with pytest.raises(UserError, match='takes 384 channels, and no published encoder mae'):
        rae_decoder.convert(small(), encoder='mae')
    with pytest.raises(UserError, match="'decoder_pos_embed'"):
        rae_decoder.convert({key: value for key, value in small().items() if key != 'decoder_pos_embed'})
    golden = read_golden('rae_decoder')
    with pytest.raises(UserError, match='takes 12 channels'):
        rae_decoder.convert(golden.state, heads=4)
