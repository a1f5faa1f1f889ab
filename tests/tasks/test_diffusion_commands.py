"""The commands on diffusion: training resumes to the same bits, validation, samples, sweeps, guides, latent caches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vq
from tests.report.support import Reader
from tests.runners.support import commands_here
from vq.cli.data import main as data
from vq.cli.latents import main as measure
from vq.cli.report import main as report
from vq.cli.sample import main as sample
from vq.cli.train import main as train
from vq.cli.val import main as validate
from vq.io.shards import ShardSet

CONFIG = 'configs/diffusion/digits.py'
TOKENIZER = 'work_dirs/kl_latents/tokenizer.safetensors'
SMALL = ['iters=4', 'dim=16', 'depth=2', 'heads=2', 'evaluate=None', 'steps=2']
ON_KL = [CONFIG, f'tokenizer_run={TOKENIZER}', 'gives=codes', *SMALL]
PLAIN = ['--override', '.trainer.optimizers.denoiser.schedule:None', '.trainer.callbacks.checkpoint.interval:2']

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A continuous tokenizer with statistics, a denoiser of its latents, and the folder that they are in."""
    home = tmp_path_factory.mktemp('diffusion')
    with commands_here(dry=False), pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        small = ['width=8', 'latent_channels=4', 'evaluate=None', '--override', '.trainer.iters:2']
        assert train(['kl', 'configs/digits/kl.py', *small, '.trainer.optimizers.tokenizer.schedule:None']) == 0
        assert measure(['kl', '--load-model-from', 'work_dirs/kl']) == 0
        assert train(['denoiser', *ON_KL, *PLAIN]) == 0
        yield home


def state(name: str) -> dict[str, torch.Tensor]:
    return load_file(f'work_dirs/{name}/checkpoints/iter_4/model.safetensors')


def test_it_resumes_bit_for_bit(home: Path) -> None:
    assert train(['again', *ON_KL, *PLAIN, '.trainer.iters:2']) == 0
    assert train(['again', *ON_KL, *PLAIN, '--auto-resume']) == 0
    whole, resumed = state('denoiser'), state('again')
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert {key.split('.')[0] for key in whole} == {'denoiser', 'conditioner', 'tokenizer'}
    assert [key for key in whole if key.startswith('tokenizer')] == ['tokenizer.digest']


def test_it_validates_and_reports(home: Path) -> None:
    assert validate(['denoiser', '--override', '.validator.dataloader.batch_size:90']) == 0
    found = json.loads((home / 'work_dirs/denoiser/val/iter_4/results.json').read_text())['results']
    parts = [value for name, value in found.items() if name.startswith('loss/t')]
    assert found['samples'] == 180 and len(parts) == 5
    assert abs(found['loss/denoising'] - sum(parts) / 5) < 1e-6
    assert report(['denoiser', '--images', '4']) == 0
    page = Reader((home / 'work_dirs/denoiser/report.html').read_text())
    assert 'DiffusionTask draws images without tokens' in page.text
    assert 'The config sets DPMSolver with 2 steps, and guidance 2 (1 is no guidance).' in page.text
    guided, unguided = (page.pictures[f'{name}: the first 10 of each class'] for name in ('guided', 'unguided'))
    assert guided.shape == (10 * 36, 10 * 36, 3) and not np.array_equal(guided, unguided)
    assert np.array_equal(page.pictures['3: state 2 of 2'], guided[3 * 36 + 2 : 4 * 36 - 2, 2:34]), 'the end is the image'
    assert not np.array_equal(page.pictures['3: state 1 of 2'], page.pictures['3: state 2 of 2'])


def test_it_draws_the_same_by_command_and_in_python(home: Path) -> None:
    how = ['--num-samples', '5', '--classes', '3', '8', '--guidance', '2', '--steps', '3', '--history', '2']
    assert sample(['denoiser', *how, '--sampler', 'ddim', '--batch-size', '3']) == 0
    folder = home / 'work_dirs/denoiser_sample'
    shards = ShardSet(folder / 'shards')
    assert shards.column('category')[:].tolist() == [3, 8, 3, 8, 3] and shards.column('latent')[:].shape == (5, 4, 4, 4)
    assert shards.manifest.producer['sampler'] == {'type': 'DDIM', 'steps': 3}
    drawn = vq.load('denoiser').sample([3, 8], 5, to='numpy', guidance=2, steps=3, sampler='DDIM')
    for number, picture in enumerate(drawn):
        assert np.array_equal(picture, np.asarray(Image.open(folder / f'samples/{number:06d}.png')))
    history = np.asarray(Image.open(folder / 'history.png'))
    assert history.shape[1] > 64 and history.shape[0] > 96  # a row for each of the first batch, two states


def test_a_trained_denoiser_guides_another(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(['guided', *ON_KL[:-1], 'guide=denoiser', 'guidance=1.5', *PLAIN]) == 0
    found = state('guided')
    assert [key for key in found if key.startswith('guide')] == ['guide.digest'] and found['guide.digest'].any()
    assert sample(['guided', '--num-samples', '2', '--classes', '3']) == 0
    assert train(['wrong', *ON_KL, 'guide=kl', *PLAIN]) == 2
    assert "guide: 'kl' has no denoiser" in capsys.readouterr().err


def test_cached_latents_are_those_of_the_images(home: Path) -> None:
    """The same denoiser from a cache: means, in the order of the images, without augmentation: the same bits."""
    writing = ['--load-model-from', TOKENIZER, '--output-folder', 'cache', '--no-mirror']
    assert data(['latents', 'work_dirs/kl', *writing]) == 0
    assert train(['cached', *ON_KL, 'latents=cache', 'mirror=False', *PLAIN]) == 0
    images, cached = state('denoiser'), state('cached')
    for key, value in images.items():
        torch.testing.assert_close(cached[key].float(), value.float(), rtol=1e-4, atol=1e-5)


def test_a_sweep_measures_each_guidance(home: Path) -> None:
    assert train(['ic', 'configs/ic/digits.py', '--override', '.trainer.iters:1']) == 0
    how = ['features_run=ic', '--num-samples', '24', '--sweep', 'guidance=1:2:1', 'steps=1,2']
    assert sample(['denoiser', *ON_KL, *how, '--work-dir', 'work_dirs']) == 0
    found = json.loads((home / 'work_dirs/denoiser_sample/sweep.json').read_text())
    assert [(row['guidance'], row['steps']) for row in found['points']] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all('generate_fid' in row and 'generate_precision' in row for row in found['points'])
