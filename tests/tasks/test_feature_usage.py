"""The codes of VQ-KD and Cluster survive: over 90 % of them are in use on digits that were held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tokenizers import patch_teacher  # noqa: F401 (registers it)
from vq.assembly.compose import checked, compose
from vq.core.random import derive_seed
from vq.registries import VQRunnerRegistry
from vq.runners.context import RunContext

pytestmark = pytest.mark.slow

TEACHER = dict(type='PatchTeacher', patch=8, width=16)


SHORT = dict(codebook_size=64, iters=100, strategy='base')
LATER = dict(depth=2, kmeans_batches=8, kmeans_delay=40)


@pytest.mark.parametrize(('kind', 'options'), [('vqkd', LATER), ('cluster', {})])
def test_over_nine_tenths_of_the_codes_are_in_use(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    """The shipped config of digits, shorter, with fewer codes, and a teacher of one convolution in place of a trained one."""
    config = compose(f'configs/digits/{kind}.py', {**SHORT, **options}, {}, tiny=False)
    model = config.trainer.model
    if kind == 'vqkd':
        model.teacher, model.tokenizer.feature_decoder.out_channels = TEACHER, 16
    else:
        model.tokenizer.encoder.teacher, model.tokenizer.quantizer.embedding_dim = TEACHER, 16
    kept = [config.trainer.callbacks[name] for name in ('kmeans',) if name in config.trainer.callbacks]
    config.trainer.callbacks = kept
    torch.manual_seed(derive_seed('parameters', 3))
    trainer = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')
    trainer.bind(RunContext(kind, tmp_path / kind, seed=3, config_text='x = 1\n'))
    trainer.run()
    validator: Any = VQRunnerRegistry.build({**checked(config, 'validator'), 'model': trainer.model}, 'validator')
    validator.bind(RunContext(kind, tmp_path / f'{kind}_val', seed=3))
    found = validator.run()
    assert (found['samples'], trainer.model.tokenizer.codebook_size) == (180, 64)
    assert found['codebook_usage'] > 0.9, found
