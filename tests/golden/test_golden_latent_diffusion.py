"""Latent diffusion's arithmetic, as layout_diffuse has it: schedules, step grids, conversions, reverse steps, the bound.

Its 'linear' schedule is our scaled_linear. Losses with learned log variances and thresholds are not those of a path.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vq.core.records import Prediction
from vq.interfaces import Level
from vq.losses.denoising import elbo_weights, squared_error
from vq.losses.variational import neighbours, step_bits
from vq.sampling.paths.betas import BetaPath, betas_of
from vq.sampling.posterior import posterior, reverse
from vq.sampling.predictions import converted, noised, target_of

TENSORS = dict(rtol=1e-4, atol=1e-5)
FLOOR = 1e-20  # their variance where s is data
KINDS = {'noise': 'epsilon', 'v': 'v', 'y_0': 'x0'}


def test_latent_diffusion_schedule_and_steps(golden):
    """``ddim_plms_samplers``: its 'linear' is our scaled_linear; its steps are the indices of falling times."""
    peer = golden('ddim_plms_samplers')
    path = BetaPath('scaled_linear', 1000, peer.meta['linear_start'], peer.meta['linear_end'])
    times = np.array(path.times(10, 'leading'))
    levels = [path.level_at(time) for time in times]
    assert torch.equal(torch.from_numpy((times[:-1] * 1000).round() - 1).long().flip(0), peer['out/timesteps'])
    squares = torch.tensor([level.alpha**2 for level in levels[::-1]], dtype=torch.float64)
    torch.testing.assert_close(squares[1:].float(), peer['out/alphas'], rtol=1e-5, atol=0)
    torch.testing.assert_close(squares[:-1], peer['out/alphas_prev'], rtol=1e-6, atol=0)
    grid: Level = path.level(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    torch.testing.assert_close((grid.alpha**2).float(), peer['out/alphas_cumprod'], rtol=1e-5, atol=0)


@pytest.mark.parametrize('case', ['uniform_20', 'uniform_30', 'uniform_7', 'quad_20', 'quad_50'])
def test_latent_diffusion_step_grids(golden, case):
    peer, path = golden('layout_diffusion_base'), BetaPath('scaled_linear')
    name, steps = case.split('_')
    times = path.times(int(steps), 'leading' if name == 'uniform' else 'leading_quadratic')
    theirs = peer[f'out/steps/{case}'].unique()  # quad_50 has index 1 twice: the second visit changes nothing
    assert [round(time * 1000) - 1 for time in times] == [*theirs.tolist()[::-1], 0]


def test_latent_diffusion_betas(golden):
    peer = golden('layout_diffusion_base')
    ours = {'linear': 'scaled_linear', 'sqrt_linear': 'linear', 'sqrt': 'sqrt', 'cosine': 'cosine'}
    for name, steps, settings in peer.meta['schedules']:
        ends = dict(start=settings.get('linear_start', 1e-4), end=settings.get('linear_end', 2e-2))
        found = betas_of(ours[name], steps, **({} if name == 'cosine' else ends))
        np.testing.assert_allclose(found, peer.arrays[f'out/betas/{name}_{steps}'], rtol=1e-10, atol=1e-14)


def test_forward_process_and_conversions(golden):
    peer = golden('layout_diffusion_base')
    t, s, _ = neighbours(BetaPath('scaled_linear'), (peer['in/t'] + 1) / 1000)
    x0, eps, z = peer['in/y_0'], peer['in/noise'], peer['in/y_t']
    close = torch.testing.assert_close
    close(noised(x0, eps, t), peer['out/q_sample'], **TENSORS)
    close(target_of('v', x0, eps, t), peer['out/v_target'], **TENSORS)
    close(converted(Prediction(eps, 'epsilon'), z, t, 'x0'), peer['out/y_0_from_noise'], **TENSORS)
    close(converted(Prediction(eps, 'v'), z, t, 'x0'), peer['out/y_0_from_v'], **TENSORS)
    close(converted(Prediction(eps, 'v'), z, t, 'epsilon'), peer['out/noise_from_v'], **TENSORS)
    found = posterior(z, x0, t, s, FLOOR)
    close(found.mean, peer['out/posterior_mean'], **TENSORS)
    close(found.log_variance.flatten(), peer['out/posterior_log_variance'].flatten(), rtol=1e-5, atol=0)


@pytest.mark.parametrize('target', KINDS)
def test_reverse_step_of_each_target(golden, target):
    peer = golden('layout_diffusion_base')
    t, s, _ = neighbours(BetaPath('scaled_linear'), (peer['in/t'] + 1) / 1000)
    z, at = peer['in/y_t'], (peer['in/t'] / 1000).view(-1, 1, 1, 1)
    network = 0.6 * z + 0.3 * (3 * z + 5 * at).sin() + 0.2 * (2 * z - 3 * at).cos()
    found = reverse(Prediction(network, KINDS[target]), z, t, s, 'small', FLOOR)
    torch.testing.assert_close(found.mean, peer[f'out/{target}/mean_off'], **TENSORS)
    sampled = found.mean + torch.exp(found.log_variance / 2) * peer['in/step_noise']
    torch.testing.assert_close(sampled, peer[f'out/{target}/p_sample'], **TENSORS)


def test_steps_of_the_bound_are_their_weights_of_the_squared_error(golden):
    """With the small variance a step of the bound is  beta^2 / (2 variance (1 - beta) sigma^2) |epsilon error|^2  in nats."""
    peer, path = golden('layout_diffusion_base'), BetaPath('scaled_linear')
    index = torch.tensor([1, 2, 40, 250, 700, 999])
    t, s, floor = neighbours(path, (index + 1) / 1000)
    x0, eps, value = torch.randn(3, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    prediction = Prediction(value, 'epsilon')
    nats = step_bits(prediction, noised(x0, eps, t), x0, t, s, floor) * math.log(2)
    weights = peer['out/noise/vlb_weights'][index]
    torch.testing.assert_close(nats, weights * squared_error(prediction, x0, eps, t), rtol=1e-3, atol=0)


@pytest.mark.parametrize('target', KINDS)
def test_weights_of_the_second_term(golden, target):
    """Entry 0 is that of entry 1. The derived weights of v and x0 are those of epsilon for the same error of the noise."""
    peer, path = golden('layout_diffusion_base'), BetaPath('scaled_linear')
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    wanted = peer[f'out/{target}/vlb_weights']
    torch.testing.assert_close(elbo_weights(path, t, KINDS[target], 'published').float(), wanted, rtol=3e-5, atol=0)
    x0, eps, value = torch.randn(3, 999, 2, generator=torch.Generator().manual_seed(0))
    level, times = path.level(t[1:].float()), t[1:].float()
    prediction = Prediction(value, KINDS[target])
    same = Prediction(converted(prediction, noised(x0, eps, level), level, 'epsilon'), 'epsilon')
    one, other = (elbo_weights(path, times, each.kind) * squared_error(each, x0, eps, level) for each in (prediction, same))
    torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-6)
