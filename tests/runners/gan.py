"""A tiny adversarial run for tests: a PatchGAN, an EMA codebook, and every loss with state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vq.io import atomic

# settings of the optimizers' steps, for tests that put other optimizers in their place
STEP: dict[str, dict[str, Any]] = {
    'tokenizer': {'schedule': {'type': 'CosineSchedule', 'warmup': 3}},
    'discriminator': {'clip': 1.0},
}

CONFIG = '''
"""A tiny adversarial tokenizer on digits; the discriminator starts after ``start`` steps."""

from vq.core import PyConfig

custom_imports = ['tests.runners.parts']
_kwargs_.setdefault('dataset', 'digits')
_kwargs_.setdefault('image_size', 16)
_kwargs_.setdefault('augmentation', None)
_kwargs_.setdefault('batch_size', 8)
_kwargs_.setdefault('batch_size_in_total', False)
_kwargs_.setdefault('num_workers', 0)
_kwargs_.setdefault('strategy', 'base')
_kwargs_.setdefault('multipliers', (1, 1))
_kwargs_.setdefault('codebook_size', 32)
_kwargs_.setdefault('embedding_dim', 8)
_kwargs_.setdefault('width', 8)
_kwargs_.setdefault('refine', False)
_kwargs_.setdefault('quantizer', dict(
    type='VectorQuantizer', update=dict(type='EMAUpdate', decay=0.9, restart=dict(candidates=16))))
_kwargs_.setdefault('losses', dict(l1=dict(type='L1Loss')))
_kwargs_.setdefault('discriminator', dict(type='PatchGAN', width=8, depth=1, norm=_kwargs_.get('norm', 'batch')))
_kwargs_.setdefault('discriminator_start', _kwargs_.get('start', 2))
_kwargs_.setdefault('warmup', 1)
_kwargs_.setdefault('ramp', 3)
_kwargs_.setdefault('penalties', dict(r1=dict(type='R1Penalty', interval=2), lecam=dict(type='LeCamPenalty', decay=0.5)))
_kwargs_.setdefault('lr', 1e-3)
_kwargs_.setdefault('discriminator_lr', 1e-3)

_base_ = [PyConfig.load('vqgan/interface.py', **_kwargs_)]
# lpips and features need files; of the others each is one more program for every test of XLA
validator = dict(metrics=dict.fromkeys(('lpips', 'features', 'window', 'l2', 'ssim_uniform')))
trainer = dict(
    iters=_kwargs_.get('iters', 8),
    optimizers=dict(tokenizer=dict(schedule=dict(type='CosineSchedule', warmup=3)), discriminator=dict(clip=1.0)),
    callbacks=dict(
        _delete_=True,
        noise=dict(type='NoiseCallback'),
        sample_recorder=dict(type='SampleRecorder'),
        ema=dict(type='EMACallback', decay=0.9),
        log=dict(interval=3),
        progress=None,
        git=None,
        checkpoint=dict(interval=_kwargs_.get('save_every', 4)),
    ),
)
if _kwargs_.get('kill_at'):
    trainer['callbacks']['kill'] = dict(type='KillCallback', step=_kwargs_['kill_at'], rank=_kwargs_.get('kill_rank', 0))
'''


def write_gan_config(folder: Path) -> Path:
    path = folder / 'gan.py'
    atomic.write_text(path, CONFIG)  # ranks write it at the same time
    return path
