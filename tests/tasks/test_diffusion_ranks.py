"""Diffusion on two gloo ranks is that of one process: times, noise and dropped labels are functions of the samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import GlooPool
from vq.assembly.compose import checked, compose
from vq.registries import VQRunnerRegistry
from vq.runners.context import RunContext

pytestmark = pytest.mark.slow


def trained(folder: str, strategy: str) -> dict[str, torch.Tensor]:
    """The weights after some steps of SGD. Ranks of the pool call it too."""
    settings = dict(iters=4, strategy=strategy, batch_size=8, batch_size_in_total=True, image_size=16, precision='fp32')
    network = dict(dim=32, depth=2, heads=2, patch=4, times='loss_second_moment', path='beta', stratified=True)
    config = compose('configs/diffusion/digits_pixels.py', {**settings, **network}, {}, tiny=False)
    config.trainer.optimizers = dict(denoiser=dict(type='SGD', lr=0.05))
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


@pytest.mark.parametrize('strategy', ['ddp', 'fsdp'])
def test_two_ranks_equal_one_process(tmp_path: Path, gloo_pool: GlooPool, strategy: str) -> None:
    alone = trained(str(tmp_path), 'base')
    first, second = gloo_pool.run(trained, str(tmp_path), strategy)
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-5, msg=name)
