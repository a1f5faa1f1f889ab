"""A task that nobody knew of: latent diffusion in a user's file trains, resumes, validates, draws, loads and is counted."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vq
from tests.runners.support import REPOSITORY, own_parts
from tests.warm import programs
from vq.cli.config import main as config
from vq.cli.latents import main as measure
from vq.cli.report import main as report
from vq.cli.sample import main as sample
from vq.cli.train import main as train
from vq.cli.val import main as validate
from vq.io.shards import ShardSet

TOY = Path(__file__).parent / 'toys/latent_diffusion.py'
SMALL = ['--config-options', 'width:8', 'iters:60', 'evaluate:None', '--override', '.trainer.iters:2']
RUN = ['diffusion', 'diffusion.json']


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer with statistics of its latents, and the config of a diffusion run on it."""
    home = tmp_path_factory.mktemp('diffusion')
    (home / 'latent_diffusion.py').write_text(TOY.read_text())
    with own_parts(home), pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.syspath_prepend(str(home))
        schedule = '.trainer.optimizers.tokenizer.schedule:None'
        assert train(['kl', 'configs/digits/kl.py', *SMALL, schedule]) == 0
        assert measure(['kl', '--load-model-from', 'work_dirs/kl']) == 0
        write_config(home)
        assert train([*RUN, '--trust']) == 0
        yield home


def write_config(home: Path) -> None:
    """A composed config, as any program can write one."""
    tokenizer = json.loads((home / 'work_dirs/kl/checkpoints/iter_2/config.json').read_text())['trainer']['model']['tokenizer']
    digits = {'type': 'DigitsDataset', 'image_size': 32}
    loader = {'batch_size': 8, 'num_workers': 0}
    frozen = {'type': 'FrozenTokenizer', 'image_size': 32, 'tokenizer': tokenizer}
    frozen['weights'] = 'work_dirs/kl_latents/tokenizer.safetensors'
    model = {'type': 'LatentDiffusion', 'classes': 10, 'tokenizer': frozen}
    base = {'type': 'AutoStrategy'}
    trainer = {
        'type': 'Trainer',
        'iters': 6,
        'dataset': {**digits, 'split': 'train'},
        'dataloader': loader,
        'model': model,
        'strategy': base,
        'optimizers': {'denoiser': {'type': 'AdamW', 'lr': 1e-3}},
        'callbacks': {
            'checkpoint': {'type': 'CheckpointCallback', 'interval': 3},
            'pictures': {'type': 'GenerationsCallback', 'interval': 6, 'each': 2, 'classes': 3},
        },
    }
    validator = {'type': 'Validator', 'dataset': {**digits, 'split': 'validation'}, 'dataloader': loader, 'strategy': base}
    content = {'custom_imports': ['latent_diffusion'], 'trainer': trainer, 'validator': {**validator, 'model': model}}
    (home / 'diffusion.json').write_text(json.dumps(content))


def test_the_task_is_short() -> None:
    task = next(node for node in ast.parse(TOY.read_text()).body if getattr(node, 'name', '') == 'LatentDiffusion')
    assert task.end_lineno - task.lineno < 60


def state(home: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(home / f'work_dirs/{name}/checkpoints/iter_6/model.safetensors')


@pytest.mark.slow
def test_it_resumes_bit_for_bit(home: Path) -> None:
    assert train(['again', *RUN[1:], '--trust', '--override', '.trainer.iters:3']) == 0
    assert train(['again', *RUN[1:], '--trust', '--auto-resume']) == 0
    whole, resumed = state(home, 'diffusion'), state(home, 'again')
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert not [key for key in whole if 'encoder' in key], 'the frozen tokenizer stays out of checkpoints'


@pytest.mark.slow
def test_it_sees_normalized_latents(home: Path) -> None:
    loaded = vq.load('diffusion', trust=True)
    tokenizer, plain = loaded.task.tokenizer, vq.load('kl').model
    assert tokenizer.latent.normalized == 'channel'
    image = torch.randn(3, 3, 32, 32).clamp(-1, 1)
    expected = tokenizer.tokenizer.statistics.normalize(plain.encode(image).mean)
    torch.testing.assert_close(tokenizer(image), expected)


@pytest.mark.slow
def test_it_validates_draws_and_loads(home: Path) -> None:
    assert validate(['diffusion', '--trust']) == 0
    found = json.loads((home / 'work_dirs/diffusion/val/iter_6/results.json').read_text())['results']
    assert found['samples'] == 180 and found['loss/flow'] > 0
    how = ['--trust', '--num-samples', '7', '--classes', '3', '8', '--guidance', '2', '--steps', '3']
    assert sample(['diffusion', *how, '--batch-size', '3']) == 0
    folder = home / 'work_dirs/diffusion_sample'
    shards = ShardSet(folder / 'shards')
    assert shards.column('latent')[:].shape == (7, 8, 4, 4) and shards.column('category')[:].tolist() == [3, 8, 3, 8, 3, 8, 3]
    assert shards.manifest.producer['guidance'] == 2 and shards.manifest.producer['steps'] == 3
    drawn = vq.load('diffusion', trust=True).sample([3, 8], 7, to='numpy', guidance=2, steps=3)
    for number, picture in enumerate(drawn):
        assert np.array_equal(picture, np.asarray(Image.open(folder / f'samples/{number:06d}.png')))
    assert (home / 'work_dirs/diffusion/pictures/iter_6_generated.png').is_file()


@pytest.mark.slow
def test_it_is_counted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert config(['diffusion.json', '--trust']) == 0
    said = capsys.readouterr().out
    assert 'denoiser' in said and 'checked: trainer, validator' in said


@pytest.mark.slow
@pytest.mark.parametrize('strategy', ['auto', 'FSDPStrategy'])
def test_it_trains_on_two_ranks(home: Path, strategy: str) -> None:
    """Twice the loader's batch of half the size: the same step but for the random numbers, which each rank draws."""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(REPOSITORY), str(home)])}
    command = [programs() / 'python', '-m', 'vq', '--nproc-per-node', '2', 'train', strategy, 'diffusion.json', '--trust']
    more = ['--override', '.trainer.dataloader.batch_size:4']
    more += [] if strategy == 'auto' else [f'.{which}.strategy.type::{strategy}' for which in ('trainer', 'validator')]
    done = subprocess.run([*command, *more], cwd=home, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found, whole = state(home, strategy), state(home, 'diffusion')
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in whole.items()}
    assert all(value.isfinite().all() for value in found.values())
    assert (
        sample([f'{strategy}', '--trust', '--num-samples', '2', '--override', '.validator.strategy:dict(type="BaseStrategy")'])
        == 0
    )


@pytest.mark.slow
def test_it_has_a_report(home: Path) -> None:
    assert report(['diffusion', '--trust', '--images', '4']) == 0
    page = (home / 'work_dirs/diffusion/report.html').read_text()
    assert 'LatentDiffusion draws images without tokens' in page and 'data:image/png' in page
    assert 'they compare tokens, and this model draws none' in page
