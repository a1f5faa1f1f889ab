"""Published MAR at full size: every tensor of the key lists is mapped to ours, and back; the tool; the size of MAR-H."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.published import read_golden, read_manifest
from tests.shipped import composed
from vq.cli.convert import convert_file, main
from vq.core.errors import UserError
from vq.io import tensorfile
from vq.io.published import mar, mar_kl16
from vq.io.weights import load_model_from
from vq.registries import VQConditionerRegistry, VQContinuousGeneratorRegistry


@pytest.mark.parametrize('name', ['mar_base', 'mar_large'])
def test_every_tensor_maps_both_ways(name: str) -> None:
    manifest = read_manifest(name)
    theirs = manifest['config']
    with torch.device('meta'):
        converted = mar.convert({key: torch.empty(shape) for key, shape in manifest['tensors'].items()})
        generator = VQContinuousGeneratorRegistry.build(converted.generator, 'generator')
        conditioner = VQConditionerRegistry.build(converted.conditioner, 'conditioner')
    ours = {f'generator.{key}': value for key, value in generator.state_dict().items()}
    ours |= {f'conditioner.{key}': value for key, value in conditioner.state_dict().items()}
    assert {key: value.shape for key, value in converted.tensors.items()} == {key: value.shape for key, value in ours.items()}
    assert {key: list(value.shape) for key, value in mar.restore(ours).items()} == manifest['tensors']
    assert not converted.dropped and converted.latent_scale == 0.2325
    assert sum(value.numel() for value in ours.values()) == manifest['params']
    config, head = converted.generator, converted.generator['head']['denoiser']
    assert [config['depth'], config['decoder_depth'], config['dim']] == [
        theirs['encoder_depth'],
        theirs['decoder_depth'],
        theirs['width'],
    ]
    assert [head['depth'], head['width'], config['buffer']] == [
        theirs['diffloss_d'],
        theirs['diffloss_w'],
        theirs['buffer_size'],
    ]
    assert config['cells'] == (16, 16) and conditioner.classes == theirs['class_num']


@pytest.mark.parametrize(('size', 'millions'), [('base', 208), ('large', 479), ('huge', 943)])
def test_configs_have_the_published_sizes(size: str, millions: int) -> None:
    """MAR-H has no key list: its number of parameters, from the README, within 1 %."""
    model = composed(f'configs/mar/{size}_imagenet_ddp.py', tiny=False)['trainer']['model']
    with torch.device('meta'):
        given = dict(model['generator'], channels=16, cells=(16, 16))
        generator = VQContinuousGeneratorRegistry.build(given, 'generator')
        conditioner = VQConditionerRegistry.build(dict(model['conditioner'], dim=generator.dim), 'conditioner')
    count = sum(value.numel() for part in (generator, conditioner) for value in part.parameters())
    assert count == pytest.approx(millions * 1e6, rel=0.01)


def test_values_go_back_to_where_they_came_from() -> None:
    peer = read_golden('mar_tiny')
    back = mar.restore(mar.convert(peer.state, heads=4).tensors)
    assert back.keys() == peer.state.keys()
    assert all(torch.equal(back[key], value) for key, value in peer.state.items())


def test_the_autoencoder_goes_back_too() -> None:
    peer = read_golden('mar_kl_vae')
    back = mar_kl16.restore(mar_kl16.convert(peer.state, image_size=16, latent_scale=0.2325).tensors)
    assert back.keys() == peer.state.keys()
    assert all(torch.equal(back[key], value) for key, value in peer.state.items())
    manifest = read_manifest('mar_kl16_vae')['tensors']
    converted = mar_kl16.convert({key: torch.empty(shape, device='meta') for key, shape in manifest.items()})
    assert {key: list(value.shape) for key, value in mar_kl16.restore(converted.tensors).items()} == manifest


def test_tool_writes_what_a_task_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = read_golden('mar_tiny')
    torch.save({'model': {}, 'model_ema': peer.state, 'epoch': 3}, tmp_path / 'file.pt')
    assert main(['mar', str(tmp_path / 'file.pt'), '--options', 'heads:4']) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines['latent'] == '4 x 4 cells of 4 channels, 6 classes'
    notes = tensorfile.read_header(tmp_path / 'file.pt.converted').metadata
    task = torch.nn.Module()
    task.generator = VQContinuousGeneratorRegistry.build(json.loads(notes['vq.generator']), 'generator')
    task.conditioner = VQConditionerRegistry.build(json.loads(notes['vq.conditioner']), 'conditioner')
    report = load_model_from(task, [tmp_path / 'file.pt.converted'])
    assert not report.missing and not report.unexpected
    assert torch.equal(task.conditioner.table.weight[-1:], peer.state['fake_latent'])


def test_the_autoencoder_gives_latents_of_the_scale_that_mar_sees(tmp_path: Path) -> None:
    import vq

    peer = read_golden('mar_kl_vae')
    torch.save({'model': peer.state}, tmp_path / 'kl16.ckpt')
    options = {'image_size': 16, 'latent_scale': 0.2325}
    convert_file('mar_kl16', tmp_path / 'kl16.ckpt', options, tmp_path / 'kl16')
    codec = vq.load(tmp_path / 'kl16').model
    torch.testing.assert_close(codec.normalize(peer['out/mean']), 0.2325 * peer['out/mean'])
    with pytest.raises(UserError, match='latent_scale is 0'):
        mar_kl16.convert(peer.state, image_size=16, latent_scale=0.0)


def test_other_files_are_refused() -> None:
    state = dict(read_golden('mar_tiny').state)
    with pytest.raises(UserError, match='unknown: extra'):
        mar.convert({**state, 'extra.weight': torch.zeros(2)}, heads=4)
    with pytest.raises(UserError, match='has no fake_latent'):
        mar.convert({key: value for key, value in state.items() if key != 'fake_latent'}, heads=4)
    with pytest.raises(UserError, match='unknown heads'):
        mar.convert(state)
    with pytest.raises(UserError, match='16 tokens of 4 numbers, with patches of 3'):
        mar.convert(state, heads=4, patch=3)
