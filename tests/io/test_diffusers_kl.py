"""Autoencoders in diffusers' layout: read with equal outputs, trained on, and written back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vq
from vq.assembly.matching import fit
from vq.cli.convert import convert_file
from vq.cli.export import main as export
from vq.core.errors import UserError
from vq.io import tensorfile
from vq.io.published import diffusers_kl
from vq.io.weights import load_model_from
from vq.registries import VQTaskRegistry

CLOSE = dict(rtol=1e-5, atol=1e-5)
SMALL = dict(block_out_channels=(8, 16), layers_per_block=1, latent_channels=3, norm_num_groups=4, sample_size=16)
KINDS: dict[str, dict[str, Any]] = {
    'plain': dict(scaling_factor=0.5),
    'attention in levels': dict(down=(0, 1), up=(1, 0), shift_factor=0.25),
    'no connectors': dict(use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False),
    'statistics per channel': dict(latents_mean=[0.1, 0.2, 0.3], latents_std=[1.0, 2.0, 3.0], scaling_factor=0.5),
}


def peer_of(kind: str) -> Any:
    import diffusers

    settings = {**SMALL, **KINDS[kind]}
    down, up = settings.pop('down', (0, 0)), settings.pop('up', (0, 0))
    blocks = {
        'down_block_types': tuple(f'{"Attn" * there}DownEncoderBlock2D' for there in down),
        'up_block_types': tuple(f'{"Attn" * there}UpDecoderBlock2D' for there in up),
    }
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(**blocks, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def images() -> Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def same(peer: Any, ours: Any) -> None:
    """Mean, log-variance, reconstruction, and the latents that a second stage sees."""
    theirs = peer.encode(images()).latent_dist
    latent = ours.encode(images())
    torch.testing.assert_close(latent.mean, theirs.mean, **CLOSE)
    torch.testing.assert_close(latent.logvar, theirs.logvar, **CLOSE)
    torch.testing.assert_close(ours.decode(latent.mean), peer.decode(theirs.mean).sample, **CLOSE)
    config = peer.config
    z = theirs.mean - (config.shift_factor or 0)
    if config.latents_mean is not None:
        mean, deviation = (torch.tensor(value).view(1, -1, 1, 1) for value in (config.latents_mean, config.latents_std))
        z = (theirs.mean - mean) / deviation
    torch.testing.assert_close(ours.normalize(latent.mean), z * config.scaling_factor, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_outputs_are_equal_and_there_and_back(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = peer_of(kind)
    peer.save_pretrained(tmp_path / 'vae')
    said = dict(convert_file('diffusers_kl', tmp_path / 'vae', {}, tmp_path / 'vae.converted'))
    assert said['latent'] == '3 x 8 x 8 per image of 16 pixels, continuous (KLAutoencoder)'
    ours = vq.load(tmp_path / 'vae.converted').model
    same(peer, ours)
    assert export([str(tmp_path / 'vae.converted'), str(tmp_path / 'back')]) == 0
    assert 'latent       3 channels' in capsys.readouterr().out
    again = type(peer).from_pretrained(tmp_path / 'back').eval()
    same(again, ours)
    assert {**again.state_dict()}.keys() == {**peer.state_dict()}.keys()
    assert all(torch.equal(value, peer.state_dict()[key]) for key, value in again.state_dict().items())
    with pytest.raises(UserError, match='already exists'):
        export.__wrapped__([str(tmp_path / 'vae.converted'), str(tmp_path / 'back')])


def test_training_starts_where_it_ended(tmp_path: Path) -> None:
    """A task with the converted file: its outputs before the first step are the peer's, and a step changes them."""
    peer = peer_of('plain')
    peer.save_pretrained(tmp_path / 'vae')
    convert_file('diffusers_kl', tmp_path / 'vae', {}, tmp_path / 'kl')
    config = json.loads(tensorfile.read_header(tmp_path / 'kl').metadata['vq.tokenizer'])
    task = VQTaskRegistry.build(dict(type='ImageTokenization', tokenizer=config, losses=dict(l1=dict(type='L1Loss'))))
    load_model_from(task, [tmp_path / 'kl'])
    same(peer, task.tokenizer.eval())
    task.train()
    optimizer = torch.optim.Adam(task.tokenizer.parameters(), 1e-3)
    made = []
    for _ in range(2):
        latent = task.tokenizer.encode(images())
        loss = (task.tokenizer.decode(latent.mean) - images()).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        made.append(loss.item())
    assert made[1] < made[0]


def state_of(attention: dict[str, str]) -> dict[str, Tensor]:
    """The tensors of an autoencoder with one level under their names, without the package; ``attention``: its names."""
    state: dict[str, Tensor] = {}

    def conv(name: str, after: int, before: int, kernel: int = 3) -> None:
        state[f'{name}.weight'], state[f'{name}.bias'] = torch.randn(after, before, kernel, kernel), torch.randn(after)

    def norm(name: str) -> None:
        state[f'{name}.weight'], state[f'{name}.bias'] = torch.ones(8), torch.zeros(8)

    def block(name: str) -> None:
        for number in (1, 2):
            norm(f'{name}.norm{number}'), conv(f'{name}.conv{number}', 8, 8)

    for side, level, blocks in (('encoder', 'down_blocks', 1), ('decoder', 'up_blocks', 2)):
        conv(f'{side}.conv_in', 8, 3 if side == 'encoder' else 2)
        for index in range(blocks):
            block(f'{side}.{level}.0.resnets.{index}')
        block(f'{side}.mid_block.resnets.0'), block(f'{side}.mid_block.resnets.1')
        norm(f'{side}.mid_block.attentions.0.group_norm')
        for name in attention.values():
            state[f'{side}.mid_block.attentions.0.{name}.weight'] = torch.randn(8, 8)
            state[f'{side}.mid_block.attentions.0.{name}.bias'] = torch.randn(8)
        norm(f'{side}.conv_norm_out'), conv(f'{side}.conv_out', 4 if side == 'encoder' else 3, 8)
    return state


NEW = dict(q='to_q', k='to_k', v='to_v', proj='to_out.0')
OLD = dict(q='query', k='key', v='value', proj='proj_attn')
SETTINGS = dict(_class_name='AutoencoderKL', norm_num_groups=4, sample_size=8, scaling_factor=0.5)


def test_old_and_new_names_of_attention() -> None:
    torch.manual_seed(0)
    state = state_of(NEW)
    old = {key: state[key] for key in state if 'attentions' not in key or 'group_norm' in key}
    for ours, name in OLD.items():
        found = {key: value for key, value in state.items() if f'.{NEW[ours]}.' in key}
        old |= {key.replace(NEW[ours], name): value for key, value in found.items()}
    one, other = (diffusers_kl.convert(found, SETTINGS) for found in (state, old))
    assert one.tokenizer == other.tokenizer and one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(one.tensors[key], other.tensors[key]) for key in one.tensors)
    assert one.tensors['tokenizer.encoder.refine.1.q.weight'].shape == (8, 8, 1, 1)
    fit(one.tokenizer, {key: tuple(value.shape) for key, value in one.tensors.items()}, 'a file')
    own = {key.removeprefix('tokenizer.'): value for key, value in one.tensors.items()}
    settings, tensors = diffusers_kl.exported(one.tokenizer, own, 8)
    assert tensors.keys() == state.keys() and all(torch.equal(tensors[key], state[key]) for key in state)
    assert settings['scaling_factor'] == 0.5 and not settings['use_quant_conv'] and settings['latent_channels'] == 2


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(down_block_types=['DownBlock2D']), 'DownBlock2D'),
        (dict(act_fn='gelu'), 'activation gelu'),
        (dict(norm_num_groups=3), 'norm_num_groups is 3, for norms of'),
        (dict(latents_mean=[0.0, 0.0]), 'one of latents_mean and latents_std is missing'),
        (dict(latents_mean=[0.0], latents_std=[1.0]), 'not 2 finite means'),
        (dict(scaling_factor=-1.0), 'not 2 finite means and positive deviations'),
        (dict(scaling_factor='much'), 'cannot be read'),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        diffusers_kl.convert(state_of(NEW), {**SETTINGS, **change})
    assert caught.value.hint


def test_folders_that_are_no_autoencoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='holds no diffusion_pytorch_model'):
        diffusers_kl.locate(tmp_path)
    (tmp_path / 'diffusion_pytorch_model.bin').write_bytes(b'')
    with pytest.raises(UserError, match=r'config\.json cannot be read'):
        diffusers_kl.locate(tmp_path)
    (tmp_path / 'config.json').write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(UserError, match='describes a UNet2DModel'):
        diffusers_kl.locate(tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps(SETTINGS))
    torch.save({'a': test_folders_that_are_no_autoencoder_are_refused}, tmp_path / 'diffusion_pytorch_model.bin')
    with pytest.raises(UserError, match=r'refused|names'):  # a pickle that names a function
        convert_file('diffusers_kl', tmp_path, {}, tmp_path / 'out')
    torch.save(state_of(NEW), tmp_path / 'diffusion_pytorch_model.bin')
    assert dict(convert_file('diffusers_kl', tmp_path, {}, tmp_path / 'out'))['latent'].startswith('2 x 8 x 8 per image of 8')


@pytest.mark.parametrize(
    ('side', 'change', 'words'),
    [
        ('encoder', dict(downsample='average'), 'encoder.downsample is average'),
        ('decoder', dict(output='tanh'), 'decoder.output is tanh'),
        ('decoder', dict(width=16), 'differ in width'),
        ('decoder', dict(residual_blocks=1), 'differ in their blocks'),
        ('encoder', dict(type='ViTEncoder'), 'a KLAutoencoder with a ViTEncoder as encoder'),
    ],
)
def test_networks_without_such_a_layout_are_refused(side: str, change: dict[str, Any], words: str) -> None:
    found = diffusers_kl.convert(state_of(NEW), SETTINGS)
    config = {**found.tokenizer, side: {**found.tokenizer[side], **change}}
    with pytest.raises(UserError, match=words) as caught:
        diffusers_kl.exported(config, {key.removeprefix('tokenizer.'): value for key, value in found.tensors.items()}, 8)
    assert caught.value.hint
