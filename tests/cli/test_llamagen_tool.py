"""``tools/llamagen.py``: ten crops of each training image, for any number of ranks and after any interruption."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

import vq
from tests.ranks import GlooPool
from tests.runners.support import REPOSITORY, train, write_config
from vq.cli import llamagen
from vq.core.random import python_stream
from vq.data.datasets.folder import FolderDataset
from vq.data.datasets.tokens import TokenDataset
from vq.data.transforms import none
from vq.io import atomic
from vq.io.shards import ShardSet

COUNT = 21
DATA = ['--config-options', 'dataset::folder', 'data_root::pictures', 'augmentation::none', 'image_size:32']
SMALL = ['--override', '.validator.type::VQITRunnerRegistry.Tokenizer', '.validator.shard_size:8']
SMALL += ['.validator.dataloader.batch_size:3']


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short run called ``run``, and pictures of several sizes in two classes."""
    folder = tmp_path_factory.mktemp('home')
    write_config(folder)
    assert train(str(folder), 'run', 'tiny.py', '--override', '.trainer.iters:4') == 0
    generator = np.random.default_rng(0)
    for number in range(COUNT):
        for split in ('train', 'validation'):
            place = folder / 'pictures' / split / 'ab'[number % 2] / f'{number:02d}.png'
            place.parent.mkdir(parents=True, exist_ok=True)
            coarse = generator.integers(0, 256, (5, 6, 3)).astype(np.uint8)
            Image.fromarray(coarse).resize((40 + number, 64 - number)).save(place)
    return folder


def extract(folder: str, name: str, *arguments: str) -> int:
    """The command in this process, from ``folder``; also what ranks of the pool run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return llamagen.main([name, 'tiny.py', '--load-model-from', 'work_dirs/run', *arguments])


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for place in ('tokens', 'llamagen_tokens')
        for path in sorted((folder / place).rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def whole(home: Path) -> Path:
    assert extract(str(home), 'llamagen/one', *DATA, *SMALL) == 0
    return home / 'work_dirs/llamagen/one'


def test_files_are_the_tokens_of_ten_crops(home: Path, whole: Path) -> None:
    dataset, tokenizer = FolderDataset(home / 'pictures', 'train'), vq.load(home / 'work_dirs/run')
    shards = ShardSet(whole / 'tokens')
    codes, labels = (whole / 'llamagen_tokens' / f'imagenet32_{kind}' for kind in ('codes', 'labels'))
    numbers = {f'{number}.npy' for number in range(COUNT)}
    assert {path.name for path in codes.iterdir()} == {path.name for path in labels.iterdir()} == numbers
    assert shards.ids() == [dataset.id_of(index) for index in range(COUNT)]
    for index in (0, 7, 20):
        image = torch.from_numpy(none(dataset.read(index), python_stream('test'), image_size=35).copy()).permute(2, 0, 1)
        found = tokenizer.tokenize(torch.stack(functional.ten_crop(image, 32)))  # (10, h, w)
        code, label = np.load(codes / f'{index}.npy'), np.load(labels / f'{index}.npy')
        assert code.dtype == label.dtype == np.int64
        assert np.array_equal(code, found.flatten(1)[None].numpy())
        assert label.tolist() == [dataset.category_of(index)]
        assert np.array_equal(shards[index]['tokens'], found.numpy())
        assert shards[index]['category'] == dataset.category_of(index)
    assert len({tuple(crop.ravel()) for crop in shards[3]['tokens']}) > 5  # the crops are not all alike


def test_a_generator_draws_one_of_the_crops_each_time(whole: Path) -> None:
    dataset = TokenDataset(folder=str(whole))
    assert len(dataset) == COUNT
    stored = ShardSet(whole / 'tokens')[4]['tokens']
    drawn = [dataset.load(4, python_stream('draw', number))['tokens'] for number in range(60)]
    which = {next(k for k in range(10) if np.array_equal(tokens, stored[k])) for tokens in drawn}
    assert len(which) >= 8


def test_what_is_missing_or_cut_short_is_written_again(home: Path, whole: Path) -> None:
    before = digests(whole)
    codes = whole / 'llamagen_tokens/imagenet32_codes'
    (whole / 'tokens/manifest.json').unlink()
    (whole / 'tokens/shard-00001-of-00003.safetensors').unlink()
    (codes / '3.npy').write_bytes((codes / '3.npy').read_bytes()[:100])
    (whole / 'llamagen_tokens/imagenet32_labels/20.npy').unlink()
    untouched = (codes / '4.npy').stat().st_mtime_ns
    assert extract(str(home), 'one', *DATA, *SMALL) == 0
    assert digests(whole) == before and (codes / '4.npy').stat().st_mtime_ns == untouched


@pytest.mark.slow
def test_a_run_that_stopped_within_the_files_goes_on(home: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = [], atomic.write_bytes

    def stop_after_nine(path: Path, data: bytes) -> None:
        if path.suffix == '.npy' and len(written) >= 9:
            raise OSError(5, 'pulled out')
        written.append(path)
        write(path, data)

    monkeypatch.setattr(atomic, 'write_bytes', stop_after_nine)
    assert extract(str(home), 'stopped', *DATA, *SMALL) == 1
    monkeypatch.setattr(atomic, 'write_bytes', write)
    stopped = home / 'work_dirs/llamagen/stopped'
    assert 0 < len([*stopped.rglob('*.npy')]) < 2 * COUNT
    assert not (stopped / 'llamagen_tokens/manifest.json').exists()
    assert extract(str(home), 'stopped', *DATA, *SMALL) == 0
    assert digests(stopped) == digests(whole)


@pytest.mark.slow
def test_two_ranks_write_the_bytes_of_one(home: Path, whole: Path, gloo_pool: GlooPool) -> None:
    ranks = [*DATA, 'strategy::ddp', *SMALL]
    assert gloo_pool.run(extract, str(home), 'two', *ranks) == [0, 0]
    assert digests(home / 'work_dirs/llamagen/two') == digests(whole)


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_that_is_not_gone_on_with(home: Path, whole: Path) -> None:
    folder = home / 'work_dirs/llamagen/killed'
    command = [
        sys.executable,
        str(REPOSITORY / 'tools/llamagen.py'),
        'killed',
        'tiny.py',
        '--load-model-from',
        'work_dirs/run',
    ]
    environment = {**os.environ, 'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'}
    process = subprocess.Popen([*command, *DATA, *SMALL], cwd=home, env=environment)
    deadline = time.monotonic() + 120
    while not [*folder.glob('tokens/shard-*')] and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [*folder.glob('tokens/shard-*')]
    assert extract(str(home), 'killed', *DATA, *SMALL) == 0
    assert digests(folder) == digests(whole)


@pytest.mark.slow
def test_llamagens_files_alone(home: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = home / 'work_dirs/llamagen/alone'
    assert extract(str(home), 'alone', '--format', 'llamagen', *DATA, *SMALL) == 0
    assert not (alone / 'tokens').exists()
    assert digests(alone) == {name: digest for name, digest in digests(whole).items() if name.startswith('llamagen_tokens')}
    capsys.readouterr()
    assert extract(str(home), 'alone', '--format', 'llamagen', *DATA, *SMALL) == 0  # nothing is recomputed
    assert not (alone / 'tokens').exists()
    said = capsys.readouterr().out
    assert [line.split()[-1] for line in said.splitlines() if 'tokenised_now' in line] == ['0']
    assert extract(str(home), 'alone', '--format', 'llamagen', '--weights', 'model', *DATA, *SMALL) == 2
    assert "'weights_hash' differs" in capsys.readouterr().err


@pytest.mark.slow
def test_size_and_range_of_the_crops(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ['--image-size', '16', '--crop-range', '1.5', '--format', 'shards']
    assert extract(str(home), 'sized', *sizes, *DATA, *SMALL) == 0
    producer = ShardSet(home / 'work_dirs/llamagen/sized/tokens').manifest.producer
    assert (producer['image_size'], producer['cropped_from'], producer['token_shape']) == (16, 24, [8, 8])
    assert producer['split'] == 'train'
    assert not (home / 'work_dirs/llamagen/sized/llamagen_tokens').exists()
    assert extract(str(home), 'sized', '--image-size', '16', '--format', 'shards', *DATA, *SMALL) == 2
    assert "'cropped_from' is 24 there and 17 here" in capsys.readouterr().err


WITHOUT_TRAINER = """
from vq.core import PyConfig
_loaded = PyConfig.load('tiny.py')
_trainer = _loaded['trainer']
_export_ = dict(validator=dict(_loaded['validator'], model=_trainer['model'], strategy=_trainer['strategy']))
"""


@pytest.mark.slow
def test_what_cannot_be_done_is_said(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(home)
    assert extract(str(home), 'unlabelled', *DATA, 'classes:False', *SMALL) == 2
    error = capsys.readouterr().err
    assert 'has no classes' in error and '--format shards' in error
    assert extract(str(home), 'unlabelled', '--format', 'shards', *DATA, 'classes:False', *SMALL) == 0
    assert set(np.asarray(ShardSet('work_dirs/llamagen/unlabelled/tokens').column('category')[:])) == {-1}
    capsys.readouterr()
    (home / 'without.py').write_text(WITHOUT_TRAINER)
    assert llamagen.main(['x', 'without.py', '--load-model-from', 'work_dirs/run']) == 2
    assert 'no training split' in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        llamagen.main(['x', 'tiny.py'])
    assert stopped.value.code == 2 and '--load-model-from' in capsys.readouterr().err


@pytest.mark.slow
def test_a_continuous_tokenizer_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv('DRY_RUN', 'True')
    assert train(str(home), 'kl', 'digits/kl.py') == 0
    assert llamagen.main(['kl', 'digits/kl.py', '--load-model-from', 'work_dirs/dry_run/kl']) == 2
    assert 'is continuous' in capsys.readouterr().err


class TestFromCodes:
    def read(self, home: Path, name: str, source: Path, *arguments: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(home)
            return llamagen.main([name, 'tiny.py', '--from-codes', str(source), *arguments, *DATA])

    def test_what_was_written_is_read_back(self, home: Path, whole: Path) -> None:
        assert self.read(home, 'back', whole / 'llamagen_tokens') == 0
        back, there = ShardSet(home / 'work_dirs/llamagen/back/tokens'), ShardSet(whole / 'tokens')
        for column in ('tokens', 'category'):
            assert np.array_equal(back.column(column)[:], there.column(column)[:])
        assert back.manifest.producer['variants'] == there.manifest.producer['variants']
        assert back.column('tokens').dtype == np.uint16 and back.manifest.producer['weights_hash'] == ''
        assert self.read(home, 'owned', whole / 'llamagen_tokens', '--load-model-from', 'work_dirs/run') == 0
        owned = ShardSet(home / 'work_dirs/llamagen/owned/tokens').manifest.producer
        assert owned['weights_hash'] == there.manifest.producer['weights_hash'] != ''
        sample = TokenDataset(folder=str(home / 'work_dirs/llamagen/back'), random_variant=False).load(5, python_stream('x'))
        assert np.array_equal(sample['tokens'], there[5]['tokens'][0]) and sample['id'] == '0000005'

    def test_two_variants_and_problems(self, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        codes, labels = tmp_path / 'imagenet32_codes', tmp_path / 'imagenet32_labels'
        codes.mkdir()
        assert self.read(home, 'theirs', tmp_path) == 2
        assert 'there are no files 0.npy' in capsys.readouterr().err
        labels.mkdir()
        tokens = np.random.default_rng(1).integers(0, 32, (4, 1, 2, 256))
        for number in range(4):
            np.save(codes / f'{number}.npy', tokens[number])
            np.save(labels / f'{number}.npy', np.array([number % 3]))
        assert self.read(home, 'theirs', codes) == 0
        shards = ShardSet(home / 'work_dirs/llamagen/theirs/tokens')
        assert np.array_equal(shards.column('tokens')[:], tokens[:, 0].reshape(4, 2, 16, 16))
        assert shards.manifest.producer['variants'] == ['center', 'flip']
        for bad, message in (
            (np.full((1, 2, 256), 32), 'sample 2 of .* reach from 32 to 32, and the codebook has 32'),
            (np.zeros((1, 10, 256), int), 'sample 2 of .* those of sample 0 are'),
        ):
            np.save(codes / '2.npy', bad)
            assert self.read(home, f'bad{bad.shape[1]}', tmp_path) == 2
            assert re.search(message, capsys.readouterr().err)
        (codes / '2.npy').unlink()
        assert self.read(home, 'gap', tmp_path) == 2
        assert '2.npy is missing' in capsys.readouterr().err
        assert self.read(home, 'wrong', tmp_path, '--image-size', '16') == 2
        assert 'imagenet16_codes' in capsys.readouterr().err


def test_manifest_says_whose_codes_they_are(whole: Path) -> None:
    record = json.loads((whole / 'llamagen_tokens/manifest.json').read_text())
    assert record['count'] == COUNT and record['producer'] == ShardSet(whole / 'tokens').manifest.producer
