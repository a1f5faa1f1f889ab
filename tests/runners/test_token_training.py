"""Training on token shards: written once, by the right tokenizer, and resumed bitwise."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.ranks import GlooPool
from tests.runners.support import assert_same, commands_here, everything
from vq.cli import train
from vq.core.random import python_stream
from vq.data.datasets.digits import DigitsDataset
from vq.data.datasets.tokens import TokenDataset
from vq.data.loading import Loader, LoaderSettings
from vq.io.shards import ShardSet

pytestmark = pytest.mark.slow

CONFIG = 'configs/digits/ar.py'
SHARDS = 'ar/tokens/train/tokens'


@pytest.fixture(scope='module', autouse=True)
def _dry():
    with commands_here():
        yield


def run(folder: Path, *more: str, code: int = 0) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        assert train.main(['ar', CONFIG, '--work-dir', str(folder), *more]) == code, said.getvalue()
    return said.getvalue()


def train_on_rank(words: list[str]) -> int:
    os.environ['DRY_RUN'] = 'True'
    try:
        return train.main(words)
    finally:
        del os.environ['DRY_RUN']


@pytest.fixture(scope='module')
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('straight')
    said = run(folder)
    assert 'tokenising 1437 images of digits, once' in said
    # what SHA-256 costs is said once, here at the end of a run of less than an epoch
    assert len(re.findall(r'SHA-256 of token shards: \d+ files, \d+\.\d MB, \d+\.\d\d s .*, \d+\.\d % of', said)) == 1
    return folder


def test_every_image_has_its_tokens_and_class(straight):
    shards = ShardSet(straight / SHARDS, verify=True)
    source = DigitsDataset(split='train', image_size=32)
    assert shards.ids() == [source.id_of(index) for index in range(len(source))]
    assert shards.manifest.producer['random_weights'] is True
    dataset = TokenDataset(folder=str(straight / 'ar/tokens/train'))
    assert len(dataset) == len(source) and dataset.name == 'digits' and dataset.split == 'train'
    stream = python_stream('test')
    for index in (0, 700, 1436):
        sample = dataset.load(index, stream)
        assert sample['category'] == source.load(index, stream)['category']
        assert sample['id'] == source.id_of(index) == dataset.id_of(index)
        np.testing.assert_array_equal(sample['tokens'], shards.column('tokens')[index][0])


def test_a_damaged_token_shard_ends_the_run_before_it_trains_anything(straight, tmp_path):
    shutil.copytree(straight / SHARDS, tmp_path / SHARDS)
    victim = next((tmp_path / SHARDS).glob('shard*'))
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    said = run(tmp_path, code=2)
    assert f'{victim.name} is damaged: its SHA-256' in said
    assert not list(tmp_path.glob('ar/checkpoints/iter_*'))


def test_a_batch_brings_tokens_and_no_image(straight):
    dataset = TokenDataset(folder=str(straight / 'ar/tokens/train'))
    with Loader(dataset, [[(0, 3), (0, 5)]], LoaderSettings(2), 0, training=True) as loader:
        (batch,) = loader
    assert batch.image is None and tuple(batch.tokens.shape) == (2, 4, 4)
    assert str(batch.tokens.dtype) == 'torch.int64' and batch.category.shape == (2,)


def test_a_resumed_run_ends_with_the_same_bits_and_makes_no_tokens(straight, tmp_path):
    shutil.copytree(straight / 'ar/tokens', tmp_path / 'ar/tokens')
    shutil.copytree(straight / 'ar/checkpoints/iter_4', tmp_path / 'ar/checkpoints/iter_4')
    said = run(tmp_path, '--auto-resume')
    assert 'resumed' in said and 'tokenising' not in said
    ours, theirs = (folder / 'ar/checkpoints/iter_8' for folder in (tmp_path, straight))
    assert_same(everything(ours), everything(theirs))


def test_tokens_that_were_begun_are_finished(straight, tmp_path):
    shutil.copytree(straight / 'ar/tokens', tmp_path / 'ar/tokens')
    (tmp_path / SHARDS / 'manifest.json').unlink()
    run(tmp_path, '--overwrite')
    assert (tmp_path / SHARDS / 'manifest.json').read_bytes() == (straight / SHARDS / 'manifest.json').read_bytes()


def on_two_ranks(folder: Path, strategy: str, pool: GlooPool) -> dict[str, float]:
    """Results of the final evaluation of 8 images, all on the first rank, as no batch is left for the other."""
    words = ['ar', CONFIG, '--work-dir', str(folder), '--override', f'.trainer.strategy.type::{strategy}']
    assert pool.run(train_on_rank, words) == [0, 0]
    lines = [json.loads(line) for line in (folder / 'ar/log.jsonl').read_text().splitlines()]
    found = next(line for line in lines if line['kind'] == 'eval')
    return {name: value for name, value in found.items() if isinstance(value, float) and name != 'seconds'}


def test_two_ranks_write_the_same_tokens_and_shards_of_parameters_do_not_matter(straight, tmp_path, gloo_pool: GlooPool):
    replicated = on_two_ranks(tmp_path / 'ddp', 'DDPStrategy', gloo_pool)
    sharded = on_two_ranks(tmp_path / 'fsdp', 'FSDPStrategy', gloo_pool)
    for folder in (tmp_path / 'ddp', tmp_path / 'fsdp'):
        ours, theirs = ({path.name: path.read_bytes() for path in (at / SHARDS).glob('shard-*')} for at in (folder, straight))
        assert ours == theirs and ours
    assert sharded == pytest.approx(replicated, rel=1e-4) and 'token_loss' in sharded
    pictures = [
        np.asarray(Image.open(tmp_path / name / 'ar/pictures/iter_8_generated.png'), np.int16) for name in ('ddp', 'fsdp')
    ]
    assert np.abs(pictures[0] - pictures[1]).mean() < 1


def test_tokens_of_another_tokenizer_are_refused(straight, tmp_path):
    folder = straight / 'ar/tokens/train'
    more = ('--seed', '5', '--override', f'.trainer.dataset.folder::{folder}')
    assert 'were made by another tokenizer' in run(tmp_path, *more, code=2)


def test_images_can_be_tokenised_on_the_fly(tmp_path):
    said = run(tmp_path, '--config-options', 'on_the_fly:True')
    assert 'tokenising' not in said and not (tmp_path / 'ar/tokens').exists()


def test_missing_tokens_say_how_to_make_them(tmp_path):
    said = run(tmp_path, '--override', f'.trainer.dataset.folder::{tmp_path}/none', '.trainer.dataset.source:None', code=2)
    assert 'there are no token shards' in said and 'vq.tasks.image_tokenization.tokenize' in said
