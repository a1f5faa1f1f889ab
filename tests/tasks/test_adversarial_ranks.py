"""Adversarial training on two gloo ranks: bitwise equal ranks, and equality with one process and the joined batch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import GlooPool
from tests.runners.gan import STEP, write_gan_config
from tests.runners.support import assert_same
from vq.assembly.compose import checked, compose
from vq.core.random import derive_seed
from vq.registries import VQRunnerRegistry
from vq.runners.context import RunContext

pytestmark = pytest.mark.slow


SGD = dict(type='SGD', lr=0.02)  # Adam would amplify rounding errors of gradients near zero to whole steps


def train_gan(folder: str, options: dict[str, Any], exact: bool = False) -> dict[str, Any]:
    """A run of the tiny adversarial config: the model's state, the weight of every step. Ranks of the pool call it too."""
    config = compose(str(Path(folder) / 'gan.py'), options, {}, tiny=False)
    config.trainer.callbacks = []
    if exact:
        config.trainer.optimizers = {name: SGD | step for name, step in STEP.items()}
    torch.manual_seed(derive_seed('parameters', 7))
    trainer = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')
    trainer.bind(RunContext('gan', Path(folder) / 'run', seed=7))
    weights: list[float] = []
    forward = trainer.model.weight.forward

    def remembered(gradients: Any) -> Any:
        value = forward(gradients)
        weights.append(float(value))
        return value

    trainer.model.weight.forward = remembered
    trainer.run()
    return {'state': {name: value.clone() for name, value in trainer.model.state_dict().items()}, 'weights': weights}


def test_ranks_stay_equal_to_the_bit(tmp_path: Path, gloo_pool: GlooPool) -> None:
    """20 steps, adaptive weight, R1, LeCam, batch norm, an EMA codebook with restarts."""
    write_gan_config(tmp_path)
    first, second = gloo_pool.run(train_gan, str(tmp_path), dict(iters=20, start=0, strategy='ddp'))
    assert len(first['state']) > 30 and len(first['weights']) == 19  # one step of warm-up
    assert_same(first['state'], second['state'])  # running statistics of a discriminator's batch norm too
    assert first['weights'] == second['weights']


def test_two_ranks_equal_one_process(tmp_path: Path, gloo_pool: GlooPool) -> None:
    """Without batch statistics only the joined batch matters, including adaptive weight, R1 and LeCam."""
    options = dict(iters=6, start=0, norm='none', quantizer=dict(type='VectorQuantizer'), batch_size_in_total=True)
    write_gan_config(tmp_path)
    first, _ = gloo_pool.run(train_gan, str(tmp_path), dict(options, strategy='ddp'), True)
    with tempfile.TemporaryDirectory() as folder:
        write_gan_config(Path(folder))
        alone = train_gan(folder, dict(options, strategy='base'), True)
    torch.testing.assert_close(first['weights'], alone['weights'], rtol=1e-4, atol=0)
    for name, value in alone['state'].items():
        torch.testing.assert_close(
            first['state'][name], value, rtol=1e-4, atol=5e-5, msg=lambda text, name=name: f'{name}: {text}'
        )


def test_synchronized_batch_norm_makes_two_ranks_equal_one_process(tmp_path: Path, gloo_pool: GlooPool) -> None:
    discriminator = dict(type='PatchGAN', width=8, depth=1, synchronized=True)
    options = dict(
        iters=5, start=0, discriminator=discriminator, quantizer=dict(type='VectorQuantizer'), batch_size_in_total=True
    )
    write_gan_config(tmp_path)
    first, second = gloo_pool.run(train_gan, str(tmp_path), dict(options, strategy='ddp'), True)
    with tempfile.TemporaryDirectory() as folder:
        write_gan_config(Path(folder))
        alone = train_gan(folder, dict(options, strategy='base'), True)
    assert_same(first['state'], second['state'])
    for name, value in alone['state'].items():
        torch.testing.assert_close(
            first['state'][name], value, rtol=1e-4, atol=5e-5, msg=lambda text, name=name: f'{name}: {text}'
        )
