"""Sampling many images: the same bytes after interruptions and on any number of ranks; no sample is repeated or missing."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.ranks import GlooPool
from tests.runners.support import commands_here
from tests.sources import ROOT
from vq.cli import sample as command
from vq.cli import train
from vq.io.adm import open_samples
from vq.io.shards import ShardSet

pytestmark = pytest.mark.slow

CONFIG = 'configs/digits/ar.py'
BASE = ['--batch-size', '8', '--num-samples', '20']
KILLING = """
import os, signal, sys
from vq.runners.sampler import ImageSampler
keep = ImageSampler._keep
def kept(self, writer, part, *rest):
    if part.index == {batch}:
        os.kill(os.getpid(), signal.SIGKILL)
    keep(self, writer, part, *rest)
ImageSampler._keep = kept
from vq.cli.sample import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope='module', autouse=True)
def _dry():
    with commands_here():
        yield


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator after 8 steps, in a separate folder."""
    folder = tmp_path_factory.mktemp('trained')
    assert train.main(['digits', CONFIG, '--work-dir', str(folder)]) == 0
    return folder / 'digits'


def sample(words: list[str], code: int = 0) -> str:
    """Run the command. Returns its output."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        assert command.main(words) == code, said.getvalue()
    return said.getvalue()


def arguments(weights: Path, folder: Path, *more: str) -> list[str]:
    return ['digits', CONFIG, '--load-model-from', str(weights), '--work-dir', str(folder), *BASE, *more]


def draw(weights: Path, folder: Path, *more: str) -> Path:
    sample(arguments(weights, folder, *more))
    return folder / 'digits_sample'


def draw_on_rank(words: list[str]) -> int:
    os.environ['DRY_RUN'] = 'True'
    try:
        return command.main(words)
    finally:
        del os.environ['DRY_RUN']


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of samples, by name."""
    kinds = ('samples/*.png', 'samples.npz', 'shards/*', 'grid.png')
    return {str(path.relative_to(folder)): path.read_bytes() for kind in kinds for path in folder.glob(kind)}


@pytest.fixture(scope='module')
def straight(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(weights, tmp_path_factory.mktemp('straight'))


def test_every_number_is_there_once_and_classes_are_balanced(straight):
    assert sorted(path.name for path in (straight / 'samples').iterdir()) == [f'{number:06d}.png' for number in range(20)]
    shards = ShardSet(straight / 'shards', verify=True)
    assert shards.ids() == [str(number) for number in range(20)]
    assert np.asarray(shards.column('category')[:]).tolist() == [number % 10 for number in range(20)]
    picture = np.asarray(Image.open(straight / 'samples' / '000007.png'))
    assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8


def test_a_killed_run_ends_with_the_same_bytes(straight, weights, tmp_path):
    words = arguments(weights, tmp_path)
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    killed = subprocess.run([sys.executable, '-c', KILLING.format(batch=1), *words], env=environment, check=False)
    assert killed.returncode == -9
    assert len(list((tmp_path / 'digits_sample/shards').glob('*.safetensors'))) == 1, 'the batch before the kill is complete'
    assert re.search(r'drawn_now\W+12\b', sample(words))
    assert files_of(tmp_path / 'digits_sample') == files_of(straight)
    assert re.search(r'drawn_now\W+0\b', sample(words))


def test_a_picture_that_was_deleted_is_drawn_again(straight, weights, tmp_path):
    found = draw(weights, tmp_path)
    for name in ('000009.png', '000019.png'):
        (found / 'samples' / name).unlink()
    (found / 'samples' / '000010.png').write_bytes(b'')
    left = [found / '.grid.png.tmp-elsewhere-1-0a0b0c0d', found / 'samples' / '.000003.png.tmp-elsewhere-1-0a0b0c0d']
    for path in left:
        path.write_bytes(b'left by a killed run')
        os.utime(path, (0, 0))
    assert re.search(r'drawn_now\W+12\b', sample(arguments(weights, tmp_path))), 'the second batch and the last'
    assert files_of(found) == files_of(straight)
    assert not any(path.exists() for path in left)
    assert re.search(r'drawn_now\W+0\b', sample(arguments(weights, tmp_path)))
    (found / 'samples' / '000003.png').write_bytes(b'no picture')
    assert 'Delete it' in sample(arguments(weights, tmp_path), code=2)


def test_two_ranks_draw_the_same_bytes(straight, weights, tmp_path, gloo_pool: GlooPool):
    words = [*arguments(weights, tmp_path), '--override', '.trainer.strategy.type::DDPStrategy']
    assert gloo_pool.run(draw_on_rank, words) == [0, 0]
    assert files_of(tmp_path / 'digits_sample') == files_of(straight)


def test_another_batch_size_draws_the_same_tokens(straight, weights, tmp_path):
    """Bytes are guaranteed for the same batch size; tokens of such a small model are equal for any batch size."""
    found = draw(weights, tmp_path, '--batch-size', '5')
    ours, theirs = (ShardSet(place / 'shards').column('tokens')[:] for place in (found, straight))
    assert (ours == theirs).mean() > 0.99


def test_one_file_holds_the_same_pictures(straight, weights, tmp_path):
    found = draw(weights, tmp_path, '--format', 'npz')
    samples = open_samples(found / 'samples.npz')
    assert samples.shape == (20, 32, 32, 3)
    for number in (0, 11, 19):
        picture = np.asarray(Image.open(straight / 'samples' / f'{number:06d}.png'))
        np.testing.assert_array_equal(samples[number], picture)
    with np.load(found / 'samples.npz') as file:
        assert file['arr_1'].tolist() == [number % 10 for number in range(20)]


def test_other_samples_are_not_gone_on_with(straight, weights, tmp_path):
    found = draw(weights, tmp_path)
    for more in (['--guidance', '3'], ['--seed', '1'], ['--temperature', '0.5'], ['--classes', '3']):
        assert 'Use the producer' in sample(arguments(weights, tmp_path, *more), code=2)
    before = files_of(found)
    assert before == files_of(straight)
    draw(weights, tmp_path, '--classes', '3', '--overwrite')
    assert np.asarray(ShardSet(found / 'shards').column('category')[:]).tolist() == [3] * 20
    assert files_of(found) != before


def test_bad_classes_and_configs_are_refused(weights, tmp_path):
    said = sample(arguments(weights, tmp_path, '--classes', '3', '12'), code=2)
    assert 'has no class 12: it has 10' in said
    words = ['digits', 'configs/digits/vq_ema.py', '--load-model-from', str(weights), '--work-dir', str(tmp_path)]
    assert 'ImageTokenization draws no images' in sample(words, code=2)
    said = sample(arguments(weights, tmp_path, '--greedy', '--top-k', '3'), code=2)
    assert 'greedy drawing does not use top_k' in said
