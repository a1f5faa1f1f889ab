"""A representation autoencoder whose teacher is trained: two gloo ranks equal one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import GlooPool
from tests.runners.support import assert_same
from vq.assembly.compose import checked, compose
from vq.registries import VQRunnerRegistry
from vq.runners.context import RunContext

pytestmark = pytest.mark.slow
TEACHER = dict(type='DINOTeacher', dimension=16, depth=2, heads=2, image_size=32)  # without layer scale: it would hardly move


def trained(folder: str, strategy: str) -> dict[str, Any]:
    """The weights after some steps of SGD. Ranks of the pool call it too."""
    options = dict(iters=4, strategy=strategy, batch_size=8, batch_size_in_total=True, train_teacher=True, perturbation=None)
    config = compose('configs/digits/rae.py', options, {}, tiny=False)
    model = config.trainer.model
    model.tokenizer.encoder.update(dict(teacher=dict(_delete_=True, **TEACHER), layers=-1, downsampling=16))
    model.tokenizer.decoder.update(dict(dim=16, depth=1, heads=2, grid=2))
    config.trainer.optimizers = dict(tokenizer=dict(type='SGD', lr=0.05))
    config.trainer.callbacks = []
    torch.manual_seed(3)
    trainer: Any = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')
    trainer.bind(RunContext('rae', Path(folder) / strategy, seed=7))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    after = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    moved = [name for name in after if not torch.equal(before[name], after[name])]
    return {'state': after, 'moved': moved}


def test_two_ranks_equal_one_process(tmp_path: Path, gloo_pool: GlooPool) -> None:
    alone = trained(str(tmp_path), 'base')
    first, second = gloo_pool.run(trained, str(tmp_path), 'ddp')
    assert_same(first['state'], second['state'])
    for name, value in alone['state'].items():
        torch.testing.assert_close(first['state'][name], value, rtol=1e-5, atol=1e-5, msg=name)
    moved = {name.removeprefix('tokenizer.encoder.teacher.network.') for name in alone['moved']}
    assert moved > {'cls_token', 'pos_embed', 'blocks.0.attn.qkv.weight', 'blocks.1.mlp.fc2.weight'}
    assert not {'norm.weight', 'norm.bias'} & moved  # the last norm, of which the latent does not depend on scale and shift
