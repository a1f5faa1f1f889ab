"""Diffusion, layouts, energy diffusion and MAR on two gloo ranks are those of one process.

Times, noise, dropped labels and hidden tokens are functions of the samples. An energy is differentiated twice: under FSDP its
parameters stay whole between the two passes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import GlooPool
from vq.assembly.compose import checked, compose
from vq.registries import VQRunnerRegistry
from vq.runners.context import RunContext

pytestmark = pytest.mark.slow

NETWORK = dict(dim=32, depth=2, heads=2)
PIXELS = dict(NETWORK, image_size=16, patch=4, path='beta', times='loss_second_moment', stratified=True)
OF_ENERGY = dict(pixels=True, learn_step=True, contrastive=True, inner_loop=True)


@dataclasses.dataclass(frozen=True)
class Kind:
    config: str
    options: dict[str, Any]
    root: str = 'denoiser'


KINDS = {
    'diffusion': Kind('configs/diffusion/digits_pixels.py', PIXELS),
    'energy': Kind('configs/energy/digits.py', {**PIXELS, **OF_ENERGY}),
    'layout': Kind('configs/layout/digits.py', dict(width=8, multipliers=(1, 1), image_size=32)),
    'mar': Kind('configs/mar/digits.py', dict(NETWORK, width=8, latent_channels=4, head_width=32, head_depth=1), 'generator'),
}


def trained(folder: str, strategy: str, name: str) -> dict[str, torch.Tensor]:
    """The weights after some steps of SGD. Ranks of the pool call it too."""
    kind = KINDS[name]
    settings = dict(iters=4, strategy=strategy, batch_size=8, batch_size_in_total=True, precision='fp32')
    config = compose(kind.config, {**settings, **kind.options}, {}, tiny=False)
    config.trainer.optimizers = {kind.root: dict(type='SGD', lr=0.05)}
    config.trainer.callbacks = []
    torch.manual_seed(3)
    trainer: Any = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')
    trainer.bind(RunContext('diffusion', Path(folder) / strategy, seed=7))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    found = {name: _whole(value) for name, value in trainer.model.state_dict().items()}
    assert sum(not torch.equal(_whole(before[name]), found[name]) for name in found) > 10
    return found


def _whole(value: Any) -> torch.Tensor:
    whole: torch.Tensor = value.full_tensor() if hasattr(value, 'full_tensor') else value
    return whole.detach().clone()


def check(folder: Path, pool: GlooPool, strategy: str, name: str) -> dict[str, torch.Tensor]:
    alone = trained(str(folder), 'base', name)
    first, second = pool.run(trained, str(folder), strategy, name)
    assert alone.keys() == first.keys()
    for key, value in alone.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, rtol=1e-5, atol=1e-5, msg=key)
    return alone


@pytest.mark.parametrize('strategy', ['ddp', 'fsdp'])
def test_two_ranks_equal_one_process(tmp_path: Path, gloo_pool: GlooPool, strategy: str) -> None:
    check(tmp_path, gloo_pool, strategy, 'diffusion')


@pytest.mark.parametrize('strategy', ['ddp', 'fsdp'])
def test_energies_on_two_ranks_equal_one_process(tmp_path: Path, gloo_pool: GlooPool, strategy: str) -> None:
    """Second derivatives, the steps of the refinement, wrong samples, and the step size that is learned."""
    alone = check(tmp_path, gloo_pool, strategy, 'energy')
    assert float(alone['denoiser.alpha']) != pytest.approx(0.01, rel=1e-6), 'it learned'


@pytest.mark.parametrize('strategy', ['ddp', 'fsdp'])
def test_layouts_on_two_ranks_equal_one_process(tmp_path: Path, gloo_pool: GlooPool, strategy: str) -> None:
    """A UNet with region attention. Each rank pads the boxes of its own images."""
    check(tmp_path, gloo_pool, strategy, 'layout')


@pytest.mark.parametrize('strategy', ['ddp', 'fsdp'])
def test_mar_on_two_ranks_equals_one_process(tmp_path: Path, gloo_pool: GlooPool, strategy: str) -> None:
    check(tmp_path, gloo_pool, strategy, 'mar')
