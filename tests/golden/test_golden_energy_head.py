"""The energy head of MAR's fork: energies, gradients, and the guidance of its own form."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.published import Golden, read_golden
from vq.generators.heads.energy import EnergyTokenHead

NAMES = {
    'alpha': 'step_size',
    'input_proj': 'into',
    'cond_proj': 'condition',
    'res_blocks': 'blocks',
    'in_ln': 'norm',
    'mlp.0': 'into',
    'mlp.2': 'out',
    'adaLN_modulation.1': 'modulation',
    'final_layer': 'final',
}


@pytest.fixture(scope='module')
def case() -> tuple[Golden, EnergyTokenHead]:
    peer = read_golden('energy_mlp')
    meta: Any = peer.meta
    head = EnergyTokenHead(meta['token_dim'], meta['z_dim'], meta['hidden_dim'], meta['depth'], meta['steps'], meta['alpha'])
    own = {key: value for key, value in peer.state.items() if key != 'langevin_noise_std'}  # zero, and used nowhere
    for theirs, ours in NAMES.items():
        own = {key.replace(theirs, ours): value for key, value in own.items()}
    head.load_state_dict(own)
    return peer, head.eval()


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_energy_and_gradient(case: tuple[Golden, EnergyTokenHead]) -> None:
    peer, head = case
    close(head.energy(peer['in/x'], peer['in/z'])[:, None], peer['out/energy'])
    gradient, _ = head.slope(peer['in/x'], peer['in/z'])
    close(gradient, peer['out/gradient'])
    assert not gradient.requires_grad, 'no graph outside of training'


def test_trajectories(case: tuple[Golden, EnergyTokenHead]) -> None:
    peer, head = case
    x, z, other, empty = (peer[f'in/{name}'] for name in ('x', 'z', 'x_unconditional', 'z_unconditional'))
    close(head.descend(x, z, other, None, 1.0), peer['out/sample'])
    close(head.descend(x, z, other, empty, 2.0), peer['out/sample_guided'])
    with torch.inference_mode():
        close(head.descend(x, z, other, empty, 2.0), peer['out/sample_guided'])
