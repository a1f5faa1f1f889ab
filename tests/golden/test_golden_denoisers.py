"""Published diffusion transformers: with their weights, ours give their outputs, gradients and guided outputs."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from tests.published import Golden, read_golden
from vq.core.conditions import Condition
from vq.core.records import Prediction
from vq.interfaces import Conditioner, Denoiser
from vq.io.published import dit, rae_dit
from vq.registries import VQConditionerRegistry, VQDenoiserRegistry
from vq.sampling import guidance
from vq.sampling.guided import Guided

DITS = ['dit_a', 'dit_b_no_sigma_patch4']


def close(ours: Tensor, theirs: Tensor, rtol: float = 1e-4) -> None:
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=1e-5 * theirs.abs().max().item())


class Model(torch.nn.Module):
    """What a task holds of a converted file."""

    denoiser: Denoiser
    conditioner: Conditioner

    def __init__(self, converted: dit.ConvertedDenoiser) -> None:
        super().__init__()
        self.denoiser = VQDenoiserRegistry.build(converted.denoiser, 'denoiser')
        self.conditioner = VQConditionerRegistry.build(converted.conditioner, 'conditioner')
        self.load_state_dict(converted.tensors)

    def forward(self, z: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        condition = None if y is None else Condition(category=y)
        return together(self.denoiser(z, t, self.conditioner(condition, len(z))))


def together(found: Prediction) -> Tensor:
    return found.value if found.variance is None else torch.cat([found.value, found.variance], 1)


@pytest.fixture(scope='module', params=DITS)
def case(request: pytest.FixtureRequest) -> tuple[Golden, Model]:
    peer = read_golden(request.param)
    converted = dit.convert(peer.state, heads=peer.meta['num_heads'])
    assert converted.denoiser['mlp_ratio'] == peer.meta['mlp_ratio'] and converted.denoiser['depth'] == peer.meta['depth']
    assert converted.conditioner['classes'] == peer.meta['num_classes']
    return peer, Model(converted)


def test_parts(case):
    peer, model = case
    t, denoiser = (peer['in/t'] + 1) / 1000, model.denoiser
    close(denoiser.time.features(t), peer['out/timestep_sinusoid'])
    close(denoiser.time(t), peer['out/t_emb'])
    close(denoiser.positions(denoiser.patches(peer['in/x'])), peer['out/tokens_in'])
    assert torch.equal(denoiser.positions.table, peer['sd/pos_embed'][0])


def test_outputs(case):
    peer, model = case
    x, y = peer['in/x'], peer['in/y']
    close(model(x, (peer['in/t'] + 1) / 1000, y), peer['out/forward'])
    close(model(x, (peer['in/t_fractional'].double() + 1) / 1000, y), peer['out/forward_fractional_t'])
    close(model(x, (peer['in/t'] + 1) / 1000, None), peer['out/forward_null_class'])


def test_gradients(case):
    peer, model = case
    loss = model(peer['in/x'], (peer['in/t'] + 1) / 1000, peer['in/y']).square().mean()
    close(loss, peer['out/mean_square'])
    wanted = {
        'grad_x_embedder': model.denoiser.patches.weight,
        'grad_block0_qkv': model.denoiser.blocks[0].attention.qkv.weight,
        'grad_label_table': model.conditioner.table.weight,
    }
    for name, found in zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True):
        close(found, peer[f'out/{name}'], rtol=1e-3)


def guided_rows(model: Model, peer: Golden, times: Tensor, schedule: functools.partial[float], channels: int | None) -> Tensor:
    """The first half of the peer's batch, a row at a time: guidance takes one time for all rows, and the peer one for each."""

    def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
        return model.denoiser(z, torch.full((len(z),), t), model.conditioner(condition, len(z)))

    rows = []
    for row in range(len(times) // 2):
        condition = Condition(category=peer['in/cfg_y'][row : row + 1])
        steps = Guided(denoise, schedule, channels)
        rows.append(together(steps(peer['in/cfg_x'][row : row + 1], times[row].item(), condition)))
    return torch.cat(rows)


@pytest.mark.parametrize('scale', [1.5, 4.0])
def test_guidance_on_three_channels(case, scale):
    """The rest of the channels is that of the half: in the first half of the peer's batch the conditional one."""
    peer, model = case
    times = (peer['in/cfg_t'] + 1) / 1000
    schedule = functools.partial(guidance.constant, scale=scale)
    close(guided_rows(model, peer, times, schedule, channels=3), peer[f'out/forward_with_cfg_{scale}'][:2])


def test_wide_head():
    """RAE guides all channels, inside a window of times only: outside of it the output is the conditional one."""
    peer = read_golden('rae_ditdh')
    (heads, head_heads), rotary = peer.meta['num_heads'], 'enc_feat_rope.freqs_cos'
    converted = rae_dit.convert(peer.state, heads=heads, head_heads=head_heads)
    config = converted.denoiser
    assert [config['depth'], config['head_depth']] == peer.meta['depth']
    assert [config['dim'], config['head_dim']] == peer.meta['hidden_size'] and config['mlp_ratio'] == peer.meta['mlp_ratio']
    model = Model(converted)
    close(model.denoiser.blocks[0].attention.rope.table[..., 0].repeat_interleave(2, -1), peer.state[rotary])
    assert torch.equal(model.denoiser.positions.table, peer['sd/pos_embed'][0])
    close(model(peer['in/x'], peer['in/t'], peer['in/y']), peer['out/forward'])
    with torch.no_grad():
        always = functools.partial(guidance.constant, scale=2.0)
        close(guided_rows(model, peer, peer['in/cfg_t'], always, None), peer['out/forward_with_cfg_2'][:2])
        within = functools.partial(guidance.window, scale=2.0, last=0.5)
        close(guided_rows(model, peer, peer['in/cfg_t'], within, None), peer['out/forward_with_cfg_2_window_0_05'][:2])
