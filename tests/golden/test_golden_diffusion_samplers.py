"""Samplers of latent diffusion (DDIM, PLMS) and of DiT (ancestral, DDIM): whole trajectories and single steps."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.published import Golden
from vq.core.conditions import Condition
from vq.core.records import Prediction, PredictionKind
from vq.interfaces import Drive
from vq.interfaces.denoisers import Denoise
from vq.sampling.diffusion.ancestral import ancestral
from vq.sampling.diffusion.ddim import ddim
from vq.sampling.diffusion.plms import plms
from vq.sampling.diffusion.stepping import at, estimate, mixed
from vq.sampling.guidance import constant
from vq.sampling.guided import Guided
from vq.sampling.paths.betas import BetaPath
from vq.sampling.thresholds import Thresholded, clamped, dynamic


def index_of(t: float) -> int:
    """Published networks number the noisy times from 0."""
    return round(1000 * t) - 1


def no_noise(step: int) -> Tensor:
    raise AssertionError(f'noise in step {step}')


class Steps(BetaPath):
    """A path with given times for samplers."""

    chosen: list[float]

    def times(self, steps: int, spacing: str = 'uniform') -> list[float]:
        return self.chosen


# latent diffusion


def latent_path() -> BetaPath:
    return BetaPath('scaled_linear', start=0.0015, end=0.0195)


def conditional(z: Tensor, t: float, condition: Condition | None, kind: PredictionKind = 'epsilon') -> Prediction:
    """The stand-in network of the file's note. Rows without a condition have c = -0.1, others 0.2."""
    s = index_of(t) / 1000
    c = torch.full((len(z), 1, 1, 1), 0.2)
    if condition is not None and condition.null is not None:
        c = torch.where(condition.null.view(-1, 1, 1, 1), -0.1, 0.2)
    return Prediction(0.7 * z + 0.3 * torch.sin(3 * z + 5 * s) + c * torch.cos(2 * z - 3 * s), kind)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_latent_diffusion_visits_these_times(golden: Any) -> None:
    peer, path = golden('ddim_plms_samplers'), latent_path()
    times = path.times(10, 'leading')
    assert [index_of(t) for t in times] == [*reversed(peer['out/timesteps'].tolist()), 0]
    squares = [at(path, t).alpha ** 2 for t in times]
    assert squares[:-1] == pytest.approx(peer['out/alphas'].tolist()[::-1], rel=1e-5)
    assert squares[1:] == pytest.approx(peer['out/alphas_prev'].tolist()[::-1], rel=1e-5)


@pytest.mark.parametrize('scale', [1.0, 2.5])
@pytest.mark.parametrize('name', ['ddim', 'plms'])
def test_latent_diffusion_trajectories(golden: Any, name: str, scale: float) -> None:
    peer, path = golden('ddim_plms_samplers'), latent_path()
    z = peer['in/x_T']
    denoise = Guided(conditional, partial(constant, scale=scale))
    drive = Drive(denoise, path, Condition(torch.zeros(len(z)).long()), no_noise)
    states = list((ddim if name == 'ddim' else plms)(z, drive, steps=10, spacing='leading'))
    case = f'out/{name}_guidance{scale}'
    close(torch.stack(states), peer[f'{case}_all_x'])
    close(states[-1], peer[f'{case}_sample'])
    times = [at(path, t) for t in path.times(10, 'leading')]
    for index, (before, after) in enumerate(zip([z, *states], states, strict=False)):
        # z_t = alpha_t x0 + sigma_t e  and  z_s = alpha_s x0 + sigma_s e  for the step's x0 and e
        here, there = times[index], times[index + 1]
        x0 = (there.sigma * before - here.sigma * after) / (there.sigma * here.alpha - here.sigma * there.alpha)
        close(x0, peer[f'{case}_all_pred_x0'][index])


def single(peer: Golden) -> Steps:
    """The step from the timestep of the file's index 5 to that of index 4."""
    path = Steps('scaled_linear', start=0.0015, end=0.0195)
    path.chosen = [(int(k) + 1) / 1000 for k in peer['out/timesteps'][[5, 4]]]
    return path


def test_latent_diffusion_single_steps(golden: Any) -> None:
    peer = golden('ddim_plms_samplers')
    z, path = peer['in/x_T'], single(peer)
    noisy = Drive(conditional, path, None, lambda step: peer['in/step_noise'])
    close(next(ddim(z, noisy, eta=0.7)), peer['out/ddim_eta0.7_single_step'])
    close(estimate(noisy, z, at(path, path.chosen[0]))[0], peer['out/ddim_eta0.7_single_pred_x0'])
    other = Drive(partial(conditional, kind='v'), path, None, no_noise)
    close(next(ddim(z, other)), peer['out/ddim_v_single_step'])
    close(estimate(other, z, at(path, path.chosen[0]))[0], peer['out/ddim_v_single_pred_x0'])
    *_, last = ddim(z, Drive(partial(conditional, kind='v'), latent_path(), None, no_noise), steps=10, spacing='leading')
    close(last, peer['out/ddim_v_sample'])


def test_latent_diffusion_noise_of_eta(golden: Any) -> None:
    """With a network that finds no noise at all, a step is data plus the noise that is added."""
    peer = golden('ddim_plms_samplers')
    path, found = latent_path(), []
    for eta in (0.0, 0.7):
        drive = Drive(lambda z, t, condition: Prediction(0 * z, 'epsilon'), path, None, lambda step: torch.ones(1, 1))
        z = torch.zeros(1, 1, dtype=torch.float64)
        for state in ddim(z, drive, steps=10, spacing='leading', eta=eta):
            found.append(state)
    times = [at(path, t) for t in path.times(10, 'leading')]
    sigmas, z = [], torch.zeros(1, 1, dtype=torch.float64)
    for here, there, state in zip(times, times[1:], found[10:], strict=False):
        sigmas.append(float(state - there.alpha / here.alpha * z))
        z = state
    assert sigmas[::-1] == pytest.approx(peer['out/sigmas_eta0.7'].tolist(), rel=1e-4)


def test_thresholds(golden: Any) -> None:
    peer = golden('layout_diffusion_base')
    large = 1.5 * peer['in/y_t']
    torch.testing.assert_close(clamped(large), peer['out/threshold_clamp'])
    torch.testing.assert_close(dynamic(large, 0.9), peer['out/threshold_dynamic'])


# DiT

SPACINGS = {'1000': None, 'respaced50': (50, 'respaced'), 'cosine_ddim25': (25, 'strided')}
GROUPS = ['range', 'small', 'large', 'xstart_small', 'range_rescaled', 'kl']


def stand_in(group: str) -> Denoise:
    kind: PredictionKind = 'x0' if group == 'xstart_small' else 'epsilon'

    def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
        s = index_of(t) / 1000
        variance = None if group in ('small', 'large', 'xstart_small') else 0.9 * torch.cos(2 * z - 3 * s)
        return Prediction(0.7 * z + 0.3 * torch.sin(3 * z + 5 * s), kind, variance)

    return denoise


def path_of(case: str) -> tuple[Steps, list[float]]:
    """And its rising times, data first."""
    path, spacing = Steps('cosine' if 'cosine' in case else 'linear'), SPACINGS[case]
    times = [k / 1000 for k in range(1001)] if spacing is None else BetaPath.times(path, *spacing)[::-1]
    return path, times


@pytest.mark.parametrize('case', SPACINGS)
def test_single_steps_of_dit(golden: Any, case: str) -> None:
    """``p_sample`` was called for data of any size; DDIM's steps, as usual there, for data in [-1, 1]."""
    peer, (path, times) = golden(f'diffusion_math_{case}'), path_of(case)
    assert [index_of(times[int(place) + 1]) for place in peer['in/t']] == peer['out/model_timesteps'].tolist()
    for group in GROUPS:
        plain, kept = stand_in(group), Thresholded(stand_in(group), path)
        for row, place in enumerate(peer['in/t'].tolist()):
            z, noise = peer['in/x_t'][row : row + 1], peer['in/step_noise'][row : row + 1]
            path.chosen = [times[place + 1], times[place]]
            free, within = (Drive(denoise, path, None, lambda step, noise=noise: noise) for denoise in (plain, kept))
            found = {
                'p_sample': next(ancestral(z, free, variance='large' if group == 'large' else None)),
                'ddim_sample_eta0.0': next(ddim(z, within)),
                'ddim_sample_eta0.5': next(ddim(z, within, eta=0.5)),
            }
            # the same ordinary equation towards noise: DDIM's inversion. Past the last time all is noise
            x0, eps = estimate(within, z, at(path, times[place + 1]))
            found['ddim_reverse'] = mixed(x0, eps, at(path, times[place + 2])) if place + 2 < len(times) else eps
            for name, ours in found.items():
                torch.testing.assert_close(ours[0], peer[f'out/{group}/{name}'][row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('case', ['respaced50', 'cosine_ddim25'])
def test_ddim_loops_of_dit(golden: Any, case: str) -> None:
    peer, path = golden(f'diffusion_math_{case}'), path_of(case)[0]
    for group in (name for name in GROUPS if f'out/{name}/ddim_loop_eta0' in peer.arrays):
        path.chosen = path_of(case)[1][::-1]
        *_, last = ddim(peer['in/loop_start'], Drive(Thresholded(stand_in(group), path), path, None, no_noise))
        close(last, peer[f'out/{group}/ddim_loop_eta0'])


@pytest.mark.parametrize('name', ['dit_a', 'dit_b_no_sigma_patch4'])
def test_guidance_of_three_channels(golden: Any, name: str) -> None:
    """The arithmetic alone: a stand-in returns estimates that explain scale 1.5, and scale 4 follows."""
    peer = golden(name)
    channels = peer['in/cfg_x'].shape[1]
    one, four = peer['out/forward_with_cfg_1.5'], peer['out/forward_with_cfg_4.0']
    rows = len(one) // 2
    slope = (four[:rows] - one[:rows]) / 2.5  # zero where nothing is guided
    base = one[:rows] - 1.5 * slope
    estimates = torch.cat([base + slope, base])
    estimates[:, 3:] = one[:, 3:]  # of each half its own, as the published network leaves them

    def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
        assert len(z) == 2 * rows and condition is not None and condition.null is not None
        assert condition.null.tolist() == [False] * rows + [True] * rows
        variance = estimates[:, channels:] if estimates.shape[1] > channels else None
        return Prediction(estimates[:, :channels], 'epsilon', variance)

    for scale, expected in ((1.5, one), (4.0, four)):
        guided = Guided(denoise, partial(constant, scale=scale), channels=3)
        found = guided(peer['in/cfg_x'][:rows], 0.5, Condition(peer['in/cfg_y'][:rows]))
        torch.testing.assert_close(found.value, expected[:rows, :channels], rtol=1e-4, atol=1e-5)
        assert torch.equal(expected[:rows, :3], expected[rows:, :3]), 'the published network repeats the guided half'
        if found.variance is not None:
            assert torch.equal(found.variance, expected[:rows, channels:])
