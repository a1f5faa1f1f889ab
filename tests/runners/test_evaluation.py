"""Validation, token files and loading: the same figures and bytes for any split of the work."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vq
from tests.ranks import GlooPool
from tests.runners.support import train, write_config
from vq.cli import inference, tokenize, val
from vq.core.errors import UserError
from vq.io.shards import ShardSet


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short run called ``run``."""
    folder = tmp_path_factory.mktemp('home')
    write_config(folder)
    assert train(str(folder), 'run', 'tiny.py', '--override', '.trainer.iters:4') == 0
    return folder


def results(folder: Path) -> dict[str, Any]:
    record = json.loads((folder / 'val/iter_4/results.json').read_text())
    assert record['command'].startswith('python -m vq.val run')
    assert record['dataset']['split'] == 'validation'
    return {name: value for name, value in record['results'].items() if name != 'seconds'}


def validate(folder: str, *arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return val.main(['run', 'tiny.py', '--again', *arguments])


def write_tokens(folder: str, name: str, *arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return tokenize.main([name, 'tiny.py', '--load-model-from', 'work_dirs/run', *arguments])


@pytest.mark.slow
def test_figures_do_not_depend_on_batches_or_ranks(home: Path, gloo_pool: GlooPool) -> None:
    found = []
    for arguments in (['.validator.dataloader.batch_size:60'], ['.validator.dataloader.batch_size:7']):
        assert validate(str(home), '--override', *arguments) == 0
        found.append(results(home / 'work_dirs/run'))
    codes = gloo_pool.run(
        validate, str(home), '--config-options', 'strategy::ddp', '--override', '.validator.dataloader.batch_size:7'
    )
    assert codes == [0, 0]
    found.append(results(home / 'work_dirs/run'))
    assert found[0]['samples'] == 180
    for other in found[1:]:
        assert other == {name: pytest.approx(value, rel=1e-6) for name, value in found[0].items()}
        exact = ('codebook_usage', 'perplexity', 'dead_codes', 'samples')
        assert [other[name] for name in exact] == [found[0][name] for name in exact]


@pytest.mark.slow
def test_a_checkpoint_is_validated_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    assert val.main(['run', 'tiny.py', '--again', '--load-from', 'iter_{4..9}']) == 0
    first = (home / 'work_dirs/run/val/iter_4/results.json').stat().st_mtime_ns
    capsys.readouterr()
    assert val.main(['run', 'tiny.py', '--load-from', 'iter_4']) == 0
    assert 'iter_4 has results already' in capsys.readouterr().err
    assert (home / 'work_dirs/run/val/iter_4/results.json').stat().st_mtime_ns == first
    assert json.loads((home / 'work_dirs/run/checkpoints/iter_4/metrics.json').read_text())['psnr'] > 0


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


SHARDS = [
    '--override',
    '.validator.type::VQITRunnerRegistry.Tokenizer',
    '.validator.shard_size:32',
    '.validator.dataloader.batch_size:12',
]


@pytest.mark.slow
def test_token_files_are_the_same_bytes_for_one_and_two_ranks_and_after_a_break(home: Path, gloo_pool: GlooPool) -> None:
    assert write_tokens(str(home), 'one', *SHARDS) == 0
    once = home / 'work_dirs/one_tokenize/tokens'
    whole = digests(once)
    assert len(whole) == 7  # six shards of 32 for 180 digits, and the manifest
    (once / 'manifest.json').unlink()
    for name in ('shard-00001-of-00006.safetensors', 'shard-00005-of-00006.safetensors'):
        (once / name).unlink()
    assert write_tokens(str(home), 'one', *SHARDS) == 0
    assert digests(once) == whole
    assert gloo_pool.run(write_tokens, str(home), 'two', '--config-options', 'strategy::ddp', *SHARDS) == [0, 0]
    assert digests(home / 'work_dirs/two_tokenize/tokens') == whole


@pytest.mark.slow
def test_tokens_are_those_of_the_loaded_tokenizer_mirror_images_included(home: Path) -> None:
    assert (
        write_tokens(
            str(home),
            'both',
            '--train',
            '--override',
            '.validator.variants:("center","flip")',
            '.validator.type::VQITRunnerRegistry.Tokenizer',
        )
        == 0
    )
    shards = ShardSet(home / 'work_dirs/both_tokenize_train/tokens')
    assert len(shards) == 1437
    assert len(set(shards.ids())) == 1437
    from vq.core.random import python_stream
    from vq.data.datasets.digits import DigitsDataset

    dataset, tokenizer = DigitsDataset(split='train'), vq.load('run', work_dir=home / 'work_dirs')
    for index in (0, 700, 1436):
        sample = dataset.load(index, python_stream('test'))
        assert shards[index]['id'] == sample['id']
        assert shards[index]['category'] == sample['category']
        image = torch.from_numpy(np.array(sample['image'])).permute(2, 0, 1)[None]
        for variant, view in enumerate((image, image.flip(-1))):
            assert np.array_equal(shards[index]['tokens'][variant], tokenizer.tokenize(view)[0].numpy())


class TestLoad:
    def test_reconstruct_is_detokenize_of_tokenize(self, home: Path) -> None:
        tokenizer = vq.load(home / 'work_dirs/run')
        images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
        tokens = tokenizer.tokenize(images)
        assert tokens.shape == (3, *tokenizer.token_shape)
        assert torch.equal(tokenizer.reconstruct(images), tokenizer.detokenize(tokens))
        assert torch.equal(tokenizer.tokenize(images.float() / 127.5 - 1), tokens)

    def test_weights_can_be_chosen(self, home: Path) -> None:
        averaged, last = (vq.load('run', work_dir=home / 'work_dirs', weights=weights) for weights in ('auto', 'model'))
        pairs = zip(averaged.model.parameters(), last.model.parameters(), strict=True)
        assert any(not torch.equal(one, other) for one, other in pairs)

    def test_a_checkpoint_folder_is_enough(self, home: Path) -> None:
        assert 'iter_4' in repr(vq.load(home / 'work_dirs/run/checkpoints/iter_4'))

    def test_wrong_names_shapes_and_tokens_are_said(self, home: Path) -> None:
        with pytest.raises(UserError, match="there is no run, checkpoint or file 'runn'"):
            vq.load('runn', work_dir=home / 'work_dirs')
        tokenizer = vq.load('run', work_dir=home / 'work_dirs')
        with pytest.raises(UserError, match=r'images have the shape \(32, 32, 3\)'):
            tokenizer.tokenize(torch.zeros(32, 32, 3))
        with pytest.raises(UserError, match='the codebook has 32 codes'):
            tokenizer.detokenize(torch.full((1, *tokenizer.token_shape), 32))


def test_inference_writes_pairs_maps_and_tokens(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(home)
    for folder in ('a', 'b'):
        (home / folder).mkdir()
        Image.new('RGB', (50, 40), (200, 30, 90)).save(home / folder / 'red.png')
    code = inference.main(
        ['tiny.py', 'a/red.png', 'b/red.png', '--load-model-from', 'work_dirs/run', '--output', 'seen', '--device', 'cpu']
    )
    assert code == 0
    names = sorted(path.name for path in (home / 'seen').iterdir())
    assert names == [f'red{number}_{kind}' for number in ('-2', '') for kind in ('pair.png', 'tokens.npy', 'tokens.png')]
    tokens = np.load(home / 'seen/red_tokens.npy')
    assert tokens.shape == (16, 16)
    with Image.open(home / 'seen/red_pair.png') as pair, Image.open(home / 'seen/red_tokens.png') as tokens_map:
        assert pair.size == (2 * 34 + 2, 36)
        assert tokens_map.size == (32, 32)
    (home / 'a/broken.png').write_bytes(b'not a picture')
    assert inference.main(['tiny.py', 'a/broken.png', '--load-model-from', 'work_dirs/run', '--output', 'seen']) == 2
    assert '1 of 1 images could not be read' in capsys.readouterr().err


def test_bad_files_are_left_out_of_the_tokens_and_listed(home: Path) -> None:
    from PIL import Image

    pictures = home / 'pictures/validation'
    pictures.mkdir(parents=True)
    for number in range(40):
        Image.new('RGB', (32, 32), (6 * number, 0, 90)).save(pictures / f'{number:02d}.png')
    (pictures / '13.png').write_bytes(b'not a picture')
    dataset = 'dict(type="FolderDataset", root="pictures", split="validation")'
    settings = 'dict(batch_size=8, bad_images="skip", bad_image_cap=0.1)'
    overrides = [f'.validator.dataset:{dataset}', f'.validator.dataloader:{settings}']
    assert write_tokens(str(home), 'bad', '--override', *overrides) == 0
    shards = ShardSet(home / 'work_dirs/bad_tokenize/tokens')
    assert len(shards) == 39
    assert not any('13.png' in name for name in shards.ids())
    assert '13.png' in (home / 'work_dirs/bad_tokenize/tokens/manifest.json').read_text()
