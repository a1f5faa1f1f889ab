"""Small runs of VQ-KD and Cluster on digits with a teacher of one convolution, also for ranks of the pool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.assembly.compose import checked, compose
from vq.core.random import derive_seed
from vq.interfaces import Callback
from vq.io.sharded import gathered
from vq.registries import VQCallbackRegistry, VQRunnerRegistry
from vq.runners.context import RunContext

CONFIG = '''
"""The tiny form of a family, with a teacher that needs no package."""

from vq.core import PyConfig

_kind = _kwargs_['kind']
_found = PyConfig.load(f'{_kind}/interface.py', ema=0.9, **{dict(vqkd='patch', cluster='cell')[_kind]: 8})
_found.update(_found.pop('tiny'))
_teacher = dict(_delete_=True, type='PatchTeacher', patch=8, width=6, file=_kwargs_.get('teacher_file'))
if _kind == 'vqkd':
    _model = dict(teacher=_teacher, teacher_layers='last', tokenizer=dict(feature_decoder=dict(out_channels=6)))
else:
    _model = dict(tokenizer=dict(encoder=dict(teacher=_teacher), quantizer=dict(embedding_dim=6)))
_callbacks = dict(progress=None, git=None, backends=None)
_callbacks |= dict(recorder=dict(type='SampleRecorder'))
if _kind == 'vqkd':  # of a Cluster the first parameter is the teacher's
    _callbacks |= dict(noise=dict(type='NoiseCallback'))
if _kwargs_.get('kill_at'):
    _callbacks['kill'] = dict(type='KillCallback', step=_kwargs_['kill_at'])
_found.update(dict(trainer=dict(model=_model, callbacks=_callbacks)))
_modules = ['tests.tokenizers.patch_teacher', 'tests.runners.parts', 'tests.tasks.feature_runs']
_export_ = _found | dict(custom_imports=_modules)
'''
SGD = dict(type='SGD', lr=0.05)  # Adam would make whole steps of rounding errors in gradients near zero


@VQCallbackRegistry.register_()
class CodebookRecorder(Callback[Any]):
    """A copy of the codebook after every step."""

    def __init__(self) -> None:
        self.codebooks: list[Tensor] = []

    def after_step(self) -> None:
        self.codebooks.append(self.runner.model.tokenizer.quantizer.codebook.weight.detach().clone())


def write_feature_config(folder: Path) -> Path:
    path = folder / 'features.py'
    path.write_text(CONFIG)
    return path


def train_features(folder: str, options: Mapping[str, Any], sgd: bool = False) -> dict[str, Any]:
    """A run of the config: its final state on the first rank, and the codebook after every step."""
    steps = options.get('iters', 8)
    given = {name: value for name, value in options.items() if name != 'iters'}
    config = compose(str(Path(folder) / 'features.py'), given, {'.trainer.iters': steps}, tiny=False)
    kept = [config.trainer.callbacks[name] for name in ('kmeans',) if name in config.trainer.callbacks]
    config.trainer.callbacks = [*kept, dict(type='CodebookRecorder')]
    if sgd:
        config.trainer.optimizers = dict(tokenizer=SGD)
    torch.manual_seed(derive_seed('parameters', 7))
    trainer = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')
    trainer.bind(RunContext('features', Path(folder) / 'run', seed=7, config_text='x = 1\n'))
    stopped, trainer.strategy.stop = trainer.strategy.stop, lambda: None  # gathering needs the ranks
    try:
        trainer.run()
        state = {name: value.clone() for name, value in gathered(trainer.model.state_dict()).items()}
        return {'state': state, 'codebooks': [*trainer.callbacks.values()][-1].codebooks}
    finally:
        stopped()
