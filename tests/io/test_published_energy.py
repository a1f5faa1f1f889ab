"""Checkpoints of energy diffusion (mar_ebwm) at full size: every tensor is mapped to ours or dropped for a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.published import read_golden, read_manifest
from vq.cli.convert import main
from vq.core.errors import UserError
from vq.io import tensorfile
from vq.io.published import mar_energy
from vq.io.weights import load_model_from
from vq.registries import VQConditionerRegistry, VQDenoiserRegistry

SIZES = ['small_energy', 'base', 'base_energy', 'large', 'large_energy', 'xlarge', 'xlarge_energy']


@pytest.mark.parametrize('size', SIZES)
def test_every_tensor_maps(size: str) -> None:
    manifest = read_manifest(f'mar_ebwm_pure_diffusion_{size}')
    theirs, energy = manifest['config'], size.endswith('energy')
    with torch.device('meta'):
        converted = mar_energy.convert({key: torch.empty(shape) for key, shape in manifest['tensors'].items()})
        denoiser = VQDenoiserRegistry.build(converted.denoiser, 'denoiser')
        conditioner = VQConditionerRegistry.build(converted.conditioner, 'conditioner')
    ours = {f'denoiser.{key}': value.shape for key, value in denoiser.state_dict().items()}
    ours |= {f'conditioner.{key}': value.shape for key, value in conditioner.state_dict().items()}
    assert {key: value.shape for key, value in converted.tensors.items()} == ours
    dropped = [key for keys in converted.dropped.values() for key in keys]
    assert dropped == ([key for key in manifest['tensors'] if 'final_layer' in key] if energy else ['alpha'])
    assert len(converted.tensors) + len(dropped) + 1 == len(manifest['tensors']), 'one more: the positions, which are computed'
    back = {key: list(value.shape) for key, value in mar_energy.restore(converted.tensors, converted.positions).items()}
    assert back == {key: shape for key, shape in manifest['tensors'].items() if key not in dropped}
    network = converted.denoiser['denoiser'] if energy else converted.denoiser
    wanted = [theirs[key] for key in ('hidden_size', 'depth', 'num_heads')]
    assert [network[key] for key in ('dim', 'depth', 'heads')] == wanted
    assert network['patch'] == theirs['patch_size'] and network['channels'] == theirs['vae_embed_dim']
    assert converted.denoiser['type'] == ('Energy' if energy else 'DiT') and not network['learned_variance']
    assert converted.latent_scale == 0.2325 and converted.conditioner['classes'] == theirs['num_classes']


def test_values_go_back_to_where_they_came_from() -> None:
    state = read_golden('energy_dit').state
    converted = mar_energy.convert(state, heads=4)
    back = mar_energy.restore(converted.tensors, converted.positions)
    assert back.keys() == {key for key in state if 'final_layer' not in key}
    assert all(torch.equal(value, state[key]) for key, value in back.items())


def test_the_tool_writes_what_a_task_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = read_golden('energy_dit')
    torch.save({'model_ema': peer.state, 'model': {}, 'epoch': 3}, tmp_path / 'checkpoint-last.pth')
    options = ['heads:4', 'timesteps:500', 'reduction::head_then_mean', 'multiplier:2.0']
    assert main(['mar_energy', str(tmp_path / 'checkpoint-last.pth'), '--options', *options]) == 0
    lines = capsys.readouterr().out
    assert '4: the output layer: not used by an energy' in lines and '2 layers of 32 channels, 4 heads, patch 1' in lines
    output = tmp_path / 'checkpoint-last.pth.converted'
    notes = tensorfile.read_header(output).metadata
    config = json.loads(notes['vq.denoiser'])
    assert [config[key] for key in ('reduction', 'multiplier')] == ['head_then_mean', 2.0]
    assert config['denoiser']['timesteps'] == 500
    task = torch.nn.Module()
    task.denoiser = VQDenoiserRegistry.build(config)
    task.conditioner = VQConditionerRegistry.build(json.loads(notes['vq.conditioner']))
    report = load_model_from(task, [output])
    assert len(report.loaded) == len(task.state_dict()) and not report.unexpected
    assert float(task.denoiser.step) == pytest.approx(peer.meta['step_size'])


def test_other_files_are_refused() -> None:
    state = dict(read_golden('energy_dit').state)
    with pytest.raises(UserError, match=r"it has 'encoder\.weight'"):
        mar_energy.convert({**state, 'encoder.weight': torch.zeros(2)}, heads=4)
    with pytest.raises(UserError, match=r'it has no dit\.\*'):
        mar_energy.convert({'alpha': state['alpha']}, heads=4)
    with pytest.raises(UserError, match='or no alpha'):
        mar_energy.convert({key: value for key, value in state.items() if key != 'alpha'}, heads=4)
    with pytest.raises(UserError, match='not a tensor of an energy head'):
        mar_energy.convert({**state, 'dit.energy_layer.energy_head.4.weight': torch.zeros(2)}, heads=4)
