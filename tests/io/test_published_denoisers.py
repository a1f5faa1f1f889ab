"""Published denoisers at full size: every tensor of every key list is mapped to ours, and the mapping is invertible."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.published import read_golden, read_manifest
from vq.cli.convert import main
from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.errors import UserError
from vq.io import tensorfile
from vq.io.published import dit, rae_dit
from vq.io.weights import load_model_from
from vq.nn.sine_positions import sine_grid
from vq.registries import VQConditionerRegistry, VQDenoiserRegistry
from vq.sampling.diffusion.euler import euler
from vq.sampling.guidance import constant
from vq.sampling.paths import BetaPath
from vq.sampling.times import UniformTimes
from vq.tasks.diffusion.task import DiffusionTask

NAMES = ['dit_xl_2_256', 'dit_xl_2_512', 'dit_s_2_256', 'rae_ditdh_s_dinov2b_256', 'rae_ditdh_xl_dinov2b_256']
MODULES = {'dit': dit, 'rae_dit': rae_dit}


def shapes_of(tensors: dict[str, Tensor]) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in tensors.items()}


def as_list(value: object) -> list:
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize('name', NAMES)
def test_every_tensor_maps_both_ways(name: str) -> None:
    manifest = read_manifest(name)
    theirs, wide = manifest['config'], name.startswith('rae')
    with torch.device('meta'):
        converter = rae_dit if wide else dit
        converted = converter.convert({key: torch.empty(shape) for key, shape in manifest['tensors'].items()})
        denoiser = VQDenoiserRegistry.build(converted.denoiser, 'denoiser')
        conditioner = VQConditionerRegistry.build(converted.conditioner, 'conditioner')
    ours = {f'denoiser.{key}': value for key, value in denoiser.state_dict().items()}
    ours |= {f'conditioner.{key}': value for key, value in conditioner.state_dict().items()}
    assert shapes_of(converted.tensors) == shapes_of(ours)
    back = shapes_of(converter.restore(ours, denoiser.positions.table))
    assert back == {key: shape for key, shape in manifest['tensors'].items() if 'feat_rope' not in key}
    assert [list(converted.dropped), len(converted.dropped)] == [['rotary tables: computed'] if wide else [], int(wide)]
    config = converted.denoiser
    wanted = [('dim', 'head_dim'), ('depth', 'head_depth'), ('heads', 'head_heads')]
    for (first, second), key in zip(wanted, ('hidden_size', 'depth', 'num_heads'), strict=True):
        assert [config[name] for name in (first, second) if name in config] == as_list(theirs[key])
    assert config['cells'] == (theirs['input_size'],) * 2 and config['patch'] == theirs['patch_size']
    assert config['channels'] == theirs['in_channels'] and config['mlp_ratio'] == theirs['mlp_ratio']
    assert config.get('learned_variance', False) == theirs.get('learn_sigma', False)
    assert converted.conditioner['classes'] == theirs['num_classes'] == conditioner.classes
    if not wide:
        assert converted.latent_scale == theirs['latent_scale']


@pytest.mark.parametrize(('kind', 'name'), [('dit', 'dit_a'), ('dit', 'dit_b_no_sigma_patch4'), ('rae_dit', 'rae_ditdh')])
def test_values_go_back_to_where_they_came_from(kind: str, name: str) -> None:
    peer, converter = read_golden(name), MODULES[kind]
    options = {'head_heads': 4} if kind == 'rae_dit' else {}
    converted = converter.convert(peer.state, heads=4, **options)
    cells, patch = converted.denoiser['cells'], converted.denoiser['patch']
    positions = sine_grid(cells[0] // patch, cells[1] // patch, converted.denoiser['dim'])
    back = converter.restore(converted.tensors, positions)
    theirs = {key: value for key, value in peer.state.items() if 'feat_rope' not in key}
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], value) for key, value in theirs.items())


@pytest.mark.parametrize(
    ('kind', 'name', 'nest'), [('dit', 'dit_a', 'ema'), ('dit', 'dit_a', None), ('rae_dit', 'rae_ditdh', 'model')]
)
def test_tool_writes_what_a_task_loads(
    kind: str, name: str, nest: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = read_golden(name)
    torch.save({nest: peer.state, 'steps': 3} if nest else peer.state, tmp_path / 'file.pt')
    options = ['heads:4', *(['head_heads:4'] if kind == 'rae_dit' else [])]
    assert main([kind, str(tmp_path / 'file.pt'), '--options', *options]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines['network'].startswith('2 layers of ') and lines['latent'].endswith('classes')
    output = tmp_path / 'file.pt.converted'
    notes = tensorfile.read_header(output).metadata
    task = torch.nn.Module()
    task.denoiser = VQDenoiserRegistry.build(json.loads(notes['vq.denoiser']), 'denoiser')
    task.conditioner = VQConditionerRegistry.build(json.loads(notes['vq.conditioner']), 'conditioner')
    report = load_model_from(task, [output])
    assert len(report.loaded) == len(task.state_dict()) and not report.unexpected
    assert torch.equal(task.conditioner.table.weight, peer.state['y_embedder.embedding_table.weight'])


def test_a_diffusion_task_runs_on_a_converted_file(tmp_path: Path) -> None:
    """The small DiT takes images of 16 x 16 pixels, so no tokenizer; strict loading finds every tensor."""
    peer = read_golden('dit_b_no_sigma_patch4')
    torch.save(peer.state, tmp_path / 'file.pt')
    assert main(['dit', str(tmp_path / 'file.pt'), '--options', 'heads:2', '--output', str(tmp_path / 'out')]) == 0
    notes = tensorfile.read_header(tmp_path / 'out').metadata
    task = DiffusionTask(
        image_size=16,
        denoiser=VQDenoiserRegistry.build(json.loads(notes['vq.denoiser']), 'denoiser'),
        conditioner=VQConditionerRegistry.build(json.loads(notes['vq.conditioner']), 'conditioner'),
        path=BetaPath('linear', steps=1000),
        times=UniformTimes(),
        sampler=functools.partial(euler, steps=2),
        guidance=functools.partial(constant, scale=1.5),
        guided_channels=3,
    ).eval()
    report = load_model_from(task, [tmp_path / 'out'])
    assert not report.missing and not report.unexpected
    with torch.no_grad():
        found, _ = task.roots()['denoiser'](peer['in/x'], (peer['in/t'] + 1) / 1000, Condition(category=peer['in/y']))
        drawn = task.draw(Wanted(ids=[0, 1], condition=Condition(category=torch.tensor([0, 4])), seed=1))
    torch.testing.assert_close(found.value, peer['out/forward'], rtol=1e-4, atol=1e-4)
    assert drawn.images().shape == (2, 3, 16, 16)


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = dict(read_golden('dit_a').state)
    with pytest.raises(UserError, match='unknown: cap_proj'):
        dit.convert({**state, 'cap_proj.weight': torch.zeros(2)}, heads=4)
    with pytest.raises(UserError, match='has no pos_embed'):
        dit.convert({key: value for key, value in state.items() if key != 'pos_embed'}, heads=4)
    wide = dict(read_golden('rae_ditdh').state)
    with pytest.raises(UserError, match=r'has no denoiser\.time\.frequencies'):
        rae_dit.convert({key: value for key, value in wide.items() if key != 't_embedder.W'}, heads=4, head_heads=4)
    with pytest.raises(UserError, match='48 channels with unknown heads'):
        dit.convert(state)
    with pytest.raises(UserError, match='48 channels with 5 heads'):
        dit.convert(state, heads=5)
    with pytest.raises(UserError, match='12 output channels'):
        dit.convert({**state, 'final_layer.linear.weight': torch.zeros(48, 48)}, heads=4)
    with pytest.raises(UserError, match='not a tensor of a published DiT'):
        dit.restore({'denoiser.mask': torch.zeros(3)}, torch.zeros(16, 48))
    torch.save({**state, 'pos_embed': torch.zeros(1, 16, 48)}, tmp_path / 'learned.pt')
    assert main(['dit', str(tmp_path / 'learned.pt'), '--options', 'heads:4']) == 2
    assert 'positions' in capsys.readouterr().err
