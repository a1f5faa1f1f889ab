"""Improved DDPM's arithmetic, as DiT has it: tables, respacing, posteriors, reverse steps."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from tests.published import Golden, read_golden
from vq.core.records import Prediction
from vq.losses.denoising import squared_error
from vq.losses.variational import step_bits
from vq.sampling.paths.betas import BetaPath
from vq.sampling.posterior import floor_of, posterior, reverse, transition
from vq.sampling.predictions import data_and_noise, noised

SCHEDULES = {'linear': 'linear', 'squaredcos_cap_v2': 'cosine'}
SPACINGS = {'': 'respaced', 'ddim25': 'strided', '10,15,20': '10,15,20'}
CASES = ['diffusion_math_1000', 'diffusion_math_respaced50', 'diffusion_math_cosine_ddim25']
TENSORS = dict(rtol=1e-4, atol=1e-5)


def chain_of(schedule: str, steps: int, respacing: str = '') -> tuple[BetaPath, list[float]]:
    """Their names -> our path and its falling times."""
    path = BetaPath(SCHEDULES[schedule], steps)
    asked = sum(int(number) for number in re.findall(r'\d+', respacing)) or steps
    return path, path.times(asked, SPACINGS.get(respacing, 'respaced'))


class Peer:
    """Inputs of a file, and the levels of its times t and of those one step nearer to data."""

    def __init__(self, golden: Golden) -> None:
        self.golden = golden
        self.path, times = chain_of(golden.meta['schedule'], 1000, golden.meta['respacing'])
        self.floor, self.steps = floor_of(self.path, times), len(times) - 1
        rising, index = torch.tensor(times[::-1], dtype=torch.float64), golden['in/t']
        self.t, self.s = self.path.level(rising[index + 1]), self.path.level(rising[index])
        self.indices = rising[index + 1] * 1000 - 1  # what the network takes
        self.z = golden['in/x_t']

    def out(self, name: str) -> Tensor:
        return self.golden[f'out/{name}']

    def prediction(self, group: str, z: Tensor | None = None) -> Prediction:
        """Of the stand-in network that meta describes."""
        z = self.z if z is None else z
        at = (self.indices / 1000).float().view(-1, 1, 1, 1)
        value = 0.7 * z + 0.3 * (3 * z + 5 * at).sin()
        learned = 0.9 * (2 * z - 3 * at).cos() if group in ('range', 'range_rescaled', 'kl') else None
        return Prediction(value, 'x0' if group.startswith('xstart') else 'epsilon', learned)


@pytest.fixture(scope='module', params=CASES)
def peer(request: pytest.FixtureRequest) -> Peer:
    return Peer(read_golden(request.param))


def test_diffusion_tables(golden):
    tables = golden('diffusion_tables')
    cases = sorted({name.split('/')[1] for name in tables.arrays})
    assert len(cases) == 8
    for case in cases:
        names = re.fullmatch(r'(respaced_)?(\w+?)_(\d+)(?:_([\w,]+))?', case)
        assert names is not None
        path, times = chain_of(names[2], int(names[3]), names[4] or '')
        rising = torch.tensor(times[::-1], dtype=torch.float64)
        t, s = path.level(rising[1:]), path.level(rising[:-1])
        one, zero = torch.ones(len(rising) - 1, 1).double(), torch.zeros(len(rising) - 1, 1).double()
        floor = floor_of(path, times)
        of_x0, of_z = posterior(zero, one, t, s, floor), posterior(one, zero, t, s, floor)
        found = dict(
            betas=transition(t, s)[1],
            alphas_cumprod=t.alpha**2,
            posterior_variance=of_x0.variance[:, 0],
            posterior_log_variance_clipped=of_x0.log_variance[:, 0],
            posterior_mean_coef1=of_x0.mean[:, 0],
            posterior_mean_coef2=of_z.mean[:, 0],
            timestep_map=(rising[1:] * path.steps).round() - 1,
        )
        kept = [name.rsplit('/', 1)[1] for name in tables.arrays if name.split('/')[1] == case]
        for name in kept:
            wanted = tables[f'out/{case}/{name}'].double()
            torch.testing.assert_close(found[name], wanted, rtol=1e-10, atol=1e-14, msg=f'{case} {name}')


def test_forward_process_and_posterior(peer):
    x0 = peer.golden['in/x_start']
    torch.testing.assert_close(noised(x0, peer.golden['in/noise'], peer.t), peer.out('q_sample'), **TENSORS)
    found = posterior(peer.z, x0, peer.t, peer.s, peer.floor)
    torch.testing.assert_close(found.mean, peer.out('q_posterior_mean'), **TENSORS)
    assert torch.equal(peer.indices.round().long(), peer.out('model_timesteps'))
    for value, name in ((found.variance, 'variance'), (found.log_variance, 'log_variance')):
        torch.testing.assert_close(value.flatten(), peer.out(f'q_posterior_{name}'), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize('clip', ['', '_clip'])
@pytest.mark.parametrize('group', ['range', 'small', 'large', 'xstart_small', 'range_rescaled', 'kl'])
def test_reverse_step(peer, group, clip):
    prediction, large = peer.prediction(group), 'large' if group == 'large' else 'small'
    if prediction.kind != 'x0' and prediction.variance is not None:
        torch.testing.assert_close(torch.cat([prediction.value, prediction.variance], 1), peer.out('model_output'), **TENSORS)
    x0, _ = data_and_noise(prediction, peer.z, peer.t)
    x0 = x0.clamp(-1, 1) if clip else x0
    torch.testing.assert_close(x0, peer.out(f'{group}/p_pred_xstart{clip}'), **TENSORS)
    found = reverse(prediction, peer.z, peer.t, peer.s, large, peer.floor, x0)
    torch.testing.assert_close(found.mean, peer.out(f'{group}/p_mean{clip}'), **TENSORS)
    spread = torch.as_tensor(found.log_variance).expand_as(found.mean)
    torch.testing.assert_close(spread, peer.out(f'{group}/p_log_variance{clip}'), **TENSORS)
    # one sample by this distribution: no noise in the step to data
    noise = peer.golden['in/step_noise'] * (peer.golden['in/t'] > 0).view(-1, 1, 1, 1)
    if not clip:
        torch.testing.assert_close(found.mean + (spread / 2).exp() * noise, peer.out(f'{group}/p_sample'), **TENSORS)


@pytest.mark.parametrize('group', ['range', 'small', 'large', 'xstart_small', 'range_rescaled', 'kl'])
def test_training_losses(peer, group):
    """Their losses take the network at q_sample(x_start, t, noise)."""
    x0, eps = peer.golden['in/x_start'], peer.golden['in/noise']
    z = noised(x0, eps, peer.t)
    prediction = peer.prediction(group, z)
    learned = prediction.variance is not None
    bits = step_bits(prediction, z, x0, peer.t, peer.s, peer.floor, frozen_mean=group != 'kl') if learned else None
    if group == 'kl':
        torch.testing.assert_close(bits * peer.steps, peer.out('kl/train_loss'), **TENSORS)
        return
    error = squared_error(prediction, x0, eps, peer.t)
    torch.testing.assert_close(error, peer.out(f'{group}/train_mse'), **TENSORS)
    if bits is None:
        torch.testing.assert_close(error, peer.out(f'{group}/train_loss'), **TENSORS)
        return
    weighted = bits * (peer.steps / 1000 if group == 'range_rescaled' else 1)
    torch.testing.assert_close(weighted, peer.out(f'{group}/train_vb'), **TENSORS)
    torch.testing.assert_close(error + weighted, peer.out(f'{group}/train_loss'), **TENSORS)
    if group == 'range':
        torch.testing.assert_close(bits, peer.out('range/vb_bits'), **TENSORS)


def test_gradient_of_the_training_loss(peer):
    x0, eps = peer.golden['in/x_start'], peer.golden['in/noise']
    output = peer.golden['in/model_output_for_grad'].clone().requires_grad_()
    prediction = Prediction(output[:, :4], 'epsilon', output[:, 4:])
    z = noised(x0, eps, peer.t)
    loss = squared_error(prediction, x0, eps, peer.t) + step_bits(prediction, z, x0, peer.t, peer.s, peer.floor)
    loss.mean().backward()
    wanted = peer.out('range/grad_of_loss_wrt_model_output')
    torch.testing.assert_close(output.grad, wanted, rtol=1e-3, atol=1e-5 * float(wanted.abs().max()))
