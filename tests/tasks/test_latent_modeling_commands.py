"""The commands on MAR: validation, report, samples by command and in Python, and the checkpoint of the published code."""

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
from vq.cli.convert import main as convert
from vq.cli.export import main as export
from vq.cli.report import main as report
from vq.cli.sample import main as sample
from vq.cli.train import main as train
from vq.cli.val import main as validate
from vq.io.shards import ShardSet

pytestmark = pytest.mark.slow

SMALL = ['iters=2', 'dim=16', 'depth=1', 'heads=2', 'head_width=16', 'head_depth=1', 'evaluate=None', 'num_iter=2', 'buffer=2']
SAMPLER = 'sampler:dict(type="Ancestral", steps=2, spacing="respaced")'
PLAIN = ['--override', '.trainer.optimizers.generator.schedule:None']


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A continuous tokenizer, MAR in the published form, MAR with an energy head, and the folder that they are in."""
    home = tmp_path_factory.mktemp('mar')
    with commands_here(dry=False), pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        small = ['width=8', 'latent_channels=4', 'evaluate=None', '--override', '.trainer.iters:2']
        assert train(['kl', 'configs/digits/kl.py', *small, '.trainer.optimizers.tokenizer.schedule:None']) == 0
        on_kl = ['tokenizer_run=kl', *SMALL]
        assert train(['mar', 'configs/mar/digits.py', *on_kl, 'prediction=epsilon', '--config-options', SAMPLER, *PLAIN]) == 0
        head = [word for word in on_kl if not word.startswith('head_')]
        more = ['.trainer.model.generator.head.width:16', '.trainer.model.generator.head.depth:1', '.trainer.iters:1']
        assert train(['energy', 'configs/mar/digits_energy.py', *head, *PLAIN, *more]) == 0
        yield home


def test_it_validates_and_reports(home: Path) -> None:
    assert validate(['mar', '--override', '.validator.dataloader.batch_size:90']) == 0
    found = json.loads((home / 'work_dirs/mar/val/iter_2/results.json').read_text())['results']
    assert found['samples'] == 180 and {'loss/denoising', 'loss/bound'} <= found.keys()
    assert report(['mar', '--images', '4']) == 0
    page = Reader((home / 'work_dirs/mar/report.html').read_text())
    assert 'LatentModeling draws images without tokens' in page.text
    assert 'The config sets Ancestral with 2 steps, 2 iterations, and guidance 3 (1 is no guidance).' in page.text
    guided, unguided = (page.pictures[f'{name}: the first 10 of each class'] for name in ('guided', 'unguided'))
    assert guided.shape == (10 * 36, 10 * 36, 3) and not np.array_equal(guided, unguided)


def test_it_draws_the_same_by_command_and_in_python(home: Path) -> None:
    how = ['--num-samples', '5', '--classes', '3', '8', '--guidance', '2', '--num-iter', '3', '--cfg-schedule', 'cosine']
    assert sample(['mar', *how, '--batch-size', '3']) == 0
    folder = home / 'work_dirs/mar_sample'
    shards = ShardSet(folder / 'shards')
    assert shards.column('category')[:].tolist() == [3, 8, 3, 8, 3] and shards.column('latent')[:].shape == (5, 4, 4, 4)
    drawn = vq.load('mar').sample([3, 8], 5, to='numpy', guidance=2, num_iter=3, cfg_schedule='cosine')
    for number, picture in enumerate(drawn):
        assert np.array_equal(picture, np.asarray(Image.open(folder / f'samples/{number:06d}.png')))


def test_its_export_is_the_checkpoint_of_the_published_code(home: Path) -> None:
    """Read back by the converter of published files: the same tensors, of the weights and of their average."""
    assert export(['mar', 'exported']) == 0
    state = torch.load('exported/checkpoint-last.pth', weights_only=True)
    assert state.keys() == {'model', 'model_ema', 'epoch'} and state['model'].keys() == state['model_ema'].keys()
    assert json.loads(Path('exported/vq.json').read_text())['diffloss_w'] == 16
    for name, file in (('model_ema', 'ema'), ('model', 'model')):
        torch.save({'model_ema': state[name]}, f'{name}.pth')
        assert convert(['mar', f'{name}.pth', '--options', 'heads:2']) == 0
        ours = load_file(f'work_dirs/mar/checkpoints/iter_2/{file}.safetensors')
        back = load_file(f'{name}.pth.converted')
        assert back and all(torch.equal(value, ours[key]) for key, value in back.items())
        assert {key for key in ours if key.startswith(('generator.', 'conditioner.'))} <= back.keys()


def test_an_energy_head_has_no_layout_of_others_and_is_reported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(['energy', 'out']) == 2
    assert 'MAR with EnergyTokenHead has no layout of other programs' in capsys.readouterr().err
    assert report(['energy', '--images', '2']) == 0
    assert 'mean squared error' in Reader((home / 'work_dirs/energy/report.html').read_text()).text
