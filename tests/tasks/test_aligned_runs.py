"""Whole runs with a discriminator on frozen features and an alignment loss: what checkpoints hold, resuming, two ranks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.ranks import GlooPool
from tests.runners.gan import write_gan_config
from tests.runners.parts import LivelyTeacher
from tests.runners.support import assert_same, everything, logged, train
from tests.tasks.test_adversarial_ranks import train_gan
from vq.io.digest import file_digest

pytestmark = pytest.mark.slow

TEACHER = dict(type='LivelyTeacher')
DISCRIMINATOR = dict(type='DINODiscriminator', teacher=dict(TEACHER, file='eyes.safetensors'), image_size=28, kernel_size=3)
AUGMENTED = dict(type='AugmentedDiscriminator', discriminator=DISCRIMINATOR)
ALIGNMENT = dict(
    type='AlignmentLoss',
    teacher=dict(TEACHER, file='target.safetensors'),
    place='latent',
    channels=8,
    distance=dict(type='MarginLoss'),
    grid=2,
)
LOSSES = dict(l1=dict(type='L1Loss'), align=ALIGNMENT)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a config, and the files of both teachers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path))
    write_gan_config(tmp_path)
    for seed, name in enumerate(('eyes', 'target')):
        torch.manual_seed(seed)
        save_file(LivelyTeacher().network.state_dict(), tmp_path / f'{name}.safetensors')
    return tmp_path


def options(**more: Any) -> list[str]:
    values = dict(losses=LOSSES, discriminator=AUGMENTED, iters=20, start=0, save_every=10, width=4, **more)
    return ['--config-options', *(f'{name}:{value}' for name, value in values.items())]


def test_twenty_steps_resumed_after_ten_end_with_the_same_bits(folder: Path) -> None:
    """Also: digests of both teachers are recorded and no weight of them; another file is refused."""
    assert train(str(folder), 'straight', 'gan.py', *options()) == 0
    run = folder / 'work_dirs/straight'
    shutil.copytree(run, folder / 'work_dirs/broken')
    broken = folder / 'work_dirs/broken'
    shutil.rmtree(broken / 'checkpoints/iter_20')
    (broken / 'checkpoints/latest').unlink(missing_ok=True)
    assert train(str(folder), 'broken', 'gan.py', '--auto-resume', *options()) == 0
    assert_same(everything(run / 'checkpoints/iter_20'), everything(broken / 'checkpoints/iter_20'))
    assert logged(run) == logged(broken)
    place = run / 'checkpoints/iter_20'
    meta = json.loads((place / 'meta.json').read_text())
    assert meta['frozen'] == {
        str(folder / name): file_digest(folder / name) for name in ('eyes.safetensors', 'target.safetensors')
    }
    weights, average = load_file(place / 'model.safetensors'), load_file(place / 'ema.safetensors')
    assert not any('teacher' in name for name in [*weights, *average])
    assert {'losses.align.head.weight', 'discriminator.discriminator.heads.0.first.conv.u'} <= set(weights)
    assert 'losses.align.head.weight' in average and not any(name.startswith('discriminator.') for name in average)
    last = logged(run)[-1]
    terms = [value for name, value in last.items() if name.startswith('tokenizer/')]
    assert {'tokenizer/align', 'tokenizer/generator', 'discriminator/r1'} <= set(last) and len(terms) > 4
    (folder / 'target.safetensors').write_bytes((folder / 'eyes.safetensors').read_bytes())
    shutil.rmtree(broken / 'checkpoints/iter_20')
    assert train(str(folder), 'broken', 'gan.py', '--auto-resume', *options()) == 2


def test_two_ranks_stay_equal_to_the_bit(tmp_path: Path, gloo_pool: GlooPool) -> None:
    """20 steps with augmentation, adaptive weight, R1 and LeCam."""
    write_gan_config(tmp_path)
    settings = dict(iters=20, start=0, strategy='ddp', discriminator=AUGMENTED, losses=LOSSES, width=4)
    first, second = gloo_pool.run(train_gan, str(tmp_path), settings)
    assert len(first['weights']) == 19
    assert_same(first, second)
    assert any(name.startswith('losses.align.head') for name in first['state'])


def test_two_ranks_equal_one_process(tmp_path: Path, gloo_pool: GlooPool) -> None:
    """Without random changes and statistics of a batch: gradients of the heads are averaged like all others."""
    write_gan_config(tmp_path)
    quiet = dict(DISCRIMINATOR, norm='none')
    settings = dict(iters=4, start=0, discriminator=quiet, losses=LOSSES, batch_size_in_total=True, width=4)
    settings['quantizer'] = dict(type='VectorQuantizer')
    first, _ = gloo_pool.run(train_gan, str(tmp_path), dict(settings, strategy='ddp'), True)
    alone = train_gan(str(tmp_path), dict(settings, strategy='base'), True)
    torch.testing.assert_close(first['weights'], alone['weights'], rtol=1e-4, atol=0)
    for name, value in alone['state'].items():
        torch.testing.assert_close(
            first['state'][name], value, rtol=1e-4, atol=5e-5, msg=lambda text, name=name: f'{name}: {text}'
        )
