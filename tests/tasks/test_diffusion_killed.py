"""Diffusion, killed (``kill -9``) in the middle of a step and resumed, ends with the same bits: on images, and on a cache."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from tests.runners.support import assert_same, commands_here, everything, logged, start, train
from vq.cli.data import main as data
from vq.cli.latents import main as measure

pytestmark = pytest.mark.slow

TOKENIZER = 'work_dirs/kl_latents/tokenizer.safetensors'
ITERS, EVERY = 9, 3
SIZES = ['dim=16', 'depth=1', 'heads=2', 'evaluate=None', 'ema=0.9', 'batch_size=8', 'num_workers=0', 'sample_posterior=True']
# a law of times that learns, spread times, dropped classes, noise of the posterior, EMA, a schedule of the rate
CHOICES = ['times=loss_second_moment', 'stratified=True', f'tokenizer_run={TOKENIZER}', 'gives=codes', f'save_every={EVERY}']
SCHEDULE = ['--override', '.trainer.optimizers.denoiser.schedule.warmup:3', '.trainer.callbacks.generations.interval:100']

CONFIG = """
from vq.recipes import digits_diffusion

_base_ = [digits_diffusion(_kwargs_)]
custom_imports = ['tests.runners.parts']
"""
FROM: dict[str, list[str]] = {'images': [], 'cache': ['latents=cache']}


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A continuous tokenizer with statistics, and a cache of its latents."""
    home = tmp_path_factory.mktemp('killed')
    (home / 'killed.py').write_text(CONFIG)
    small = ['width=8', 'latent_channels=4', 'evaluate=None', '--override', '.trainer.iters:2']
    writing = ['--load-model-from', TOKENIZER, '--output-folder', 'cache']
    with commands_here(dry=False), pytest.MonkeyPatch.context() as patch:
        assert train(str(home), 'kl', 'configs/digits/kl.py', *small, '.trainer.optimizers.tokenizer.schedule:None') == 0
        patch.chdir(home)
        assert measure(['kl', '--load-model-from', 'work_dirs/kl']) == 0
        assert data(['latents', 'work_dirs/kl', *writing]) == 0
    return home


@pytest.mark.parametrize('source', [*FROM])
def test_a_killed_run_ends_with_the_same_bits(home: Path, source: str) -> None:
    """Weights, averages, optimizer, random generators and journal; the step of the kill is drawn for each source."""
    given = ['killed.py', f'iters={ITERS}', *SIZES, *CHOICES, *FROM[source]]
    step = random.Random(source).randrange(EVERY + 1, ITERS)
    straight, broken = f'{source}_straight', f'{source}_broken'
    kill = [f'.trainer.callbacks.kill:dict(type="KillCallback", step={step})']
    with commands_here(dry=False):
        assert train(str(home), straight, *given, *SCHEDULE) == 0
        killed = start(home, broken, *given, *SCHEDULE, *kill)
        last = home / f'work_dirs/{broken}/checkpoints/iter_{(step - 1) // EVERY * EVERY}'
        assert killed.returncode != 0 and (last / 'COMPLETE').exists(), killed.stderr
        assert train(str(home), broken, *given, *SCHEDULE, '--auto-resume') == 0
    first, second = (home / f'work_dirs/{name}/checkpoints/iter_{ITERS}' for name in (straight, broken))
    assert_same(everything(first), everything(second))
    assert logged(first.parents[1]) == logged(second.parents[1])
    seen = everything(first)['training']['optimizers']['denoiser']['state']
    assert all(torch.is_tensor(state['exp_avg']) and state['step'] == ITERS for state in seen.values()) and seen
