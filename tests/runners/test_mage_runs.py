"""MAGE by the commands: training, exact resume, two ranks, and whatever asks a generator to draw."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ranks import GlooPool
from tests.runners.support import assert_same, commands_here, everything
from tests.runners.test_sampler import draw_on_rank, files_of
from tests.runners.test_token_training import train_on_rank
from vq.cli import sample, train, val

pytestmark = pytest.mark.slow

CONFIG = 'configs/mage/digits.py'
SAMPLES = ['--batch-size', '8', '--num-samples', '20']


@pytest.fixture(scope='module', autouse=True)
def _dry():
    with commands_here():
        yield


def on(main: Callable[[list[str]], int], folder: Path, *more: str) -> None:
    assert main(['mage', CONFIG, '--work-dir', str(folder), *more]) == 0


@pytest.fixture(scope='module')
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight steps, and 20 images drawn."""
    folder = tmp_path_factory.mktemp('straight')
    on(train.main, folder)
    on(sample.main, folder, *SAMPLES)
    return folder


def test_a_resumed_run_ends_with_the_same_bits(straight, tmp_path):
    shutil.copytree(straight / 'mage/tokens', tmp_path / 'mage/tokens')
    shutil.copytree(straight / 'mage/checkpoints/iter_4', tmp_path / 'mage/checkpoints/iter_4')
    on(train.main, tmp_path, '--auto-resume')
    ours, theirs = (folder / 'mage/checkpoints/iter_8' for folder in (tmp_path, straight))
    assert_same(everything(ours), everything(theirs))


def test_two_ranks_train_and_draw_the_same_bytes_as_one(straight, tmp_path, gloo_pool: GlooPool):
    two = ['mage', CONFIG, '--override', '.trainer.strategy.type::DDPStrategy']
    assert gloo_pool.run(train_on_rank, [*two, '--work-dir', str(tmp_path / 'trained')]) == [0, 0]
    weights = ['--load-model-from', str(straight / 'mage')]
    assert gloo_pool.run(draw_on_rank, [*two, '--work-dir', str(tmp_path / 'drawn'), *SAMPLES, *weights]) == [0, 0]
    ours, theirs = (files_of(folder / 'mage_sample') for folder in (tmp_path / 'drawn', straight))
    assert ours == theirs and len(ours) > 20


def test_validation_draws_its_pictures(straight, tmp_path):
    shutil.copytree(straight / 'mage', tmp_path / 'mage')
    on(val.main, tmp_path, '--load-from', 'iter_8')
    visual = tmp_path / 'mage/val/iter_8/visual'
    assert (visual / 'generations.png').exists() and (visual / 'position_loss.html').exists()
