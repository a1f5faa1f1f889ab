"""Energy diffusion of mar_ebwm: energies, estimates, second derivatives and the inner loop, with its weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden.test_golden_denoisers import Model
from tests.published import Golden, read_golden
from vq.core.conditions import Condition
from vq.core.records import Prediction
from vq.io.published import mar_energy
from vq.sampling.descent import count_at, counts_at, descend
from vq.sampling.paths import BetaPath
from vq.sampling.predictions import noised

PATH = BetaPath('linear')
TIMES = [(index + 1) / 1000 for index in (0, 100, 250, 500, 750, 999)]

# Of the largest value, row by row. The attention of these random weights is saturated: one rounding of the input moves the
# gradient of the first row of energy_dit by 1e-4, in fp64 too. There the peer, in fp32, is 3e-3 from our fp64, and we 2e-3.
GRADIENTS = {'energy_dit': (5e-3, 5e-4, 2e-5), 'energy_dit_linear_then_mean': (5e-5, 2e-5, 1e-5)}
SECOND = {'energy_dit': 1e-2, 'energy_dit_linear_then_mean': 1e-4}


def close(ours: Tensor, theirs: Tensor, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol * theirs.abs().max().item())


@pytest.fixture(scope='module', params=GRADIENTS)
def case(request: pytest.FixtureRequest) -> tuple[str, Golden, Model]:
    peer = read_golden(request.param)
    meta = peer.meta
    converted = mar_energy.convert(
        peer.state,
        heads=meta['num_heads'],
        reduction='head_then_mean' if meta['linear_then_mean'] else 'mean_then_head',
        multiplier=meta['energy_gradient_multiplier'],
    )
    return request.param, peer, Model(converted)


def predicted(peer: Golden, model: Model, x: Tensor) -> Prediction:
    condition = model.conditioner(Condition(category=peer['in/y']), len(x))
    found: Prediction = model.denoiser(x, (peer['in/t'] + 1) / 1000, condition)
    return found


@pytest.mark.parametrize('train', [True, False])
def test_energy_and_gradient(case: tuple[str, Golden, Model], train: bool) -> None:
    name, peer, model = case
    found = predicted(peer, model.train(train), peer['in/x'])
    assert found.energy is not None and found.kind == 'epsilon'
    close(found.energy[:, None] / model.denoiser.multiplier, peer['out/energy'])
    largest = peer['out/gradient'].abs().max()
    for ours, theirs, tolerance in zip(found.value, peer['out/gradient'], GRADIENTS[name], strict=True):
        assert (ours - theirs).abs().max() < tolerance * largest


def test_second_derivatives(case: tuple[str, Golden, Model]) -> None:
    """Of the squared error of the gradient, by parameters at the beginning, in the middle and at the end of the network."""
    name, peer, model = case
    loss = (predicted(peer, model.train(), peer['in/x']).value - peer['in/noise']).square().mean()
    close(loss, peer['out/gradient_mse'], rtol=SECOND[name])
    network = model.denoiser.denoiser
    wanted = {
        'grad_x_embedder_of_mse': network.patches.weight,
        'grad_block0_qkv_of_mse': network.blocks[0].attention.qkv.weight,
        'grad_energy_head0_of_mse': model.denoiser.head.into.weight,
    }
    for key, gradient in zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True):
        close(gradient, peer[f'out/{key}'], rtol=0, atol=SECOND[name])


def test_training_loss(case: tuple[str, Golden, Model]) -> None:
    _, peer, model = case
    x_t = noised(peer['in/x'], peer['in/noise'], PATH.level((peer['in/t'] + 1) / 1000))
    close(x_t, peer['out/train_x_t'])
    error = predicted(peer, model.train(), x_t).value - peer['in/noise']
    close(error.square().flatten(1).mean(1), peer['out/train_mse_rows'], rtol=5e-4)


LOOPS: dict[str, dict[str, Any]] = {
    'opt_descent_1': dict(steps=1, size=0.02),
    'opt_descent_3': dict(steps=3, size=0.02),
    'opt_descent_3_always_accept': dict(steps=3, size=0.02, accept='always'),
    'opt_ascent_2_always_accept': dict(steps=2, size=-0.02, accept='always'),
    'opt_big_step_3': dict(steps=3, size=5.0),
}


@pytest.mark.parametrize('loop', LOOPS)
def test_inner_loop(case: tuple[str, Golden, Model], loop: str) -> None:
    """Rows have times of their own, so limits of their own. Rows that a rounding moves far are left out of the first file:
    two of its long steps, and one going uphill."""
    name, peer, model = case
    limit = 2 * PATH.level((peer['in/t'] + 1) / 1000).alpha
    found = descend(lambda z: predicted(peer, model.eval(), z), peer['in/x'], limit=limit, **LOOPS[loop])
    uphill, long = loop == 'opt_ascent_2_always_accept', loop == 'opt_big_step_3'
    skipped = ((0, 2) if long else (1,) if uphill else ()) if name == 'energy_dit' else ()
    rows = [row for row in range(3) if row not in skipped]
    largest = peer[f'out/{loop}'][rows].abs().max()
    for row in rows:  # the first one of energy_dit, see GRADIENTS, is 1.8e-4 off on one processor and below 1e-4 on another
        off = (found.z[row] - peer[f'out/{loop}'][row]).abs().max()
        assert off <= (3e-4 if (name, row) == ('energy_dit', 0) else 1e-4) * largest
    if f'out/{loop}_energy' in peer.arrays:
        close(found.energies[-1, :, None] / model.denoiser.multiplier, peer[f'out/{loop}_energy'], rtol=1e-3)
    if long:
        assert found.accepted.any() and not found.accepted.all()


def test_number_of_inner_steps(case: tuple[str, Golden, Model]) -> None:
    peer = case[1]
    for base, name in ((5, 'inference'), (2, 'training')):
        expected = peer[f'out/adaptive_steps_{name}']
        assert [count_at(t, 1000, base) for t in TIMES] == expected.tolist()
        assert torch.equal(counts_at(torch.tensor(TIMES), 1000, base), expected)
