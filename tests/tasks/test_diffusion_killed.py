"""Diffusion, energy diffusion and MAR, killed (``kill -9``) in the middle of a step and resumed, end with the same bits."""

from __future__ import annotations

import dataclasses
import hashlib
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
GIVEN = [f'iters={ITERS}', f'tokenizer_run={TOKENIZER}', 'gives=codes', f'save_every={EVERY}', *SIZES]

CONFIG = """
from vq.recipes import {recipe}

_base_ = [{recipe}(_kwargs_)]
custom_imports = ['tests.runners.parts']
"""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A recipe, its options, and the steps between pictures: with 100 a run draws none."""

    recipe: str
    options: list[str]
    root: str = 'denoiser'
    pictures: int = 100

    @property
    def words(self) -> list[str]:
        schedule = f'.trainer.optimizers.{self.root}.schedule.warmup:3'
        drawing = f'.trainer.callbacks.generations.interval:{self.pictures}'
        return [f'{self.recipe}.py', *GIVEN, *self.options, '--override', schedule, drawing]


# a law of times that learns, spread times, dropped classes, noise of the posterior, EMA, a schedule of the rate
TIMES = ['times=loss_second_moment', 'stratified=True']
# inner steps in training, with a step size that is learned and a loss on their ends, and around the sampler of the pictures
ENERGY = ['learn_step=True', 'contrastive=True', 'inner_loop=True', 'langevin=True', 'steps=2', *TIMES]
KINDS = {
    'images': Kind('digits_diffusion', TIMES),
    'cache': Kind('digits_diffusion', [*TIMES, 'latents=cache']),
    'energy': Kind('digits_energy', ENERGY, pictures=5),
    'mar': Kind('digits_mar', ['head_width=16', 'head_depth=1', 'num_iter=2', 'dropout=0.1'], 'generator', pictures=5),
}


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A continuous tokenizer with statistics, and a cache of its latents."""
    home = tmp_path_factory.mktemp('killed')
    for kind in KINDS.values():
        (home / f'{kind.recipe}.py').write_text(CONFIG.format(recipe=kind.recipe))
    small = ['width=8', 'latent_channels=4', 'evaluate=None', '--override', '.trainer.iters:2']
    writing = ['--load-model-from', TOKENIZER, '--output-folder', 'cache']
    with commands_here(dry=False), pytest.MonkeyPatch.context() as patch:
        assert train(str(home), 'kl', 'configs/digits/kl.py', *small, '.trainer.optimizers.tokenizer.schedule:None') == 0
        patch.chdir(home)
        assert measure(['kl', '--load-model-from', 'work_dirs/kl']) == 0
        assert data(['latents', 'work_dirs/kl', *writing]) == 0
    return home


@pytest.mark.parametrize('source', [*KINDS])
def test_a_killed_run_ends_with_the_same_bits(home: Path, source: str) -> None:
    """Weights, averages, optimizer, random generators and journal; the step of the kill is drawn for each source."""
    kind = KINDS[source]
    step = random.Random(source).randrange(EVERY + 1, ITERS)
    straight, broken = f'{source}_straight', f'{source}_broken'
    kill = [f'.trainer.callbacks.kill:dict(type="KillCallback", step={step})']
    with commands_here(dry=False):
        assert train(str(home), straight, *kind.words) == 0
        killed = start(home, broken, *kind.words, *kill)
        last = home / f'work_dirs/{broken}/checkpoints/iter_{(step - 1) // EVERY * EVERY}'
        assert killed.returncode != 0 and (last / 'COMPLETE').exists(), killed.stderr
        assert train(str(home), broken, *kind.words, '--auto-resume') == 0
    first, second = (home / f'work_dirs/{name}/checkpoints/iter_{ITERS}' for name in (straight, broken))
    assert_same(everything(first), everything(second))
    assert logged(first.parents[1]) == logged(second.parents[1])
    seen = everything(first)['training']['optimizers'][kind.root]['state']
    assert all(torch.is_tensor(state['exp_avg']) and state['step'] == ITERS for state in seen.values()) and seen
    for name in ('model', 'ema'):
        one, other = ((place / f'{name}.safetensors').read_bytes() for place in (first, second))
        assert hashlib.sha256(one).digest() == hashlib.sha256(other).digest(), name
