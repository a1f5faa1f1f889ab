"""``vq data latents``: to the files of other programs and back, and files that are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.runners.test_split_writer import contents
from vq.cli.data import main as data
from vq.cli.train import main as train
from vq.io.shards import ShardSet

pytestmark = pytest.mark.slow

OPTIONS = ['configs/digits/kl.py', '--config-options', 'width:8']


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two untrained tokenizers, and the latents of one for the validation split, in all formats."""
    home = tmp_path_factory.mktemp('home')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for name, seed in (('kl', '1'), ('other', '2')):
            more = ['evaluate:None', '--override', '.trainer.iters:1', '.trainer.optimizers.tokenizer.schedule:None']
            assert train([name, *OPTIONS, *more, '--seed', seed]) == 0
        for layout in ('npz', 'pt', 'ptshard'):
            assert latents('cache', '--format', layout, *(['--shard-size', '50'] if layout == 'ptshard' else [])) == 0
        yield home


def latents(output: str, *more: str, weights: str = 'kl') -> int:
    return data(['latents', *OPTIONS, '--load-model-from', weights, '--validation', '--output-folder', output, *more])


def test_the_files_are_those_of_the_other_programs(home: Path) -> None:
    shards = ShardSet(home / 'cache/validation/latents')
    row, place = shards[5], home / 'cache/validation'
    mean, logvar = row['mean'], row['logvar']
    (file,) = (place / 'npz' / str(row['category'])).glob(f'*{row["id"].rpartition("/")[2]}*')
    with np.load(file, allow_pickle=False) as found:
        for number, name in enumerate(('moments', 'moments_flip')):
            assert np.array_equal(found[name], np.concatenate([mean[number], logvar[number]]))
    one = torch.load(place / 'pt' / file.relative_to(place / 'npz').with_suffix('.pt'), weights_only=True)
    assert one['moments_flip'].dtype == torch.float16 and tuple(one['moments'].shape) == (16, 4, 4)
    assert sorted(contents(place / 'ptshard')) == ['manifest.json', *(f'shard_{number:05d}.pt' for number in range(4))]
    many = torch.load(place / 'ptshard/shard_00000.pt', weights_only=True)
    assert (
        torch.equal(many['moments'][5], one['moments']) and many['labels'][5] == row['category'] and len(many['labels']) == 50
    )


@pytest.mark.parametrize('layout', ['npz', 'pt', 'ptshard', 'latent'])
def test_imported_files_are_the_cache_they_were_exported_from(home: Path, layout: str, tmp_path: Path) -> None:
    source = home / 'cache/validation' / layout
    whole = ShardSet(home / 'cache/validation/latents')
    if layout == 'latent':  # those of the stage-1 / stage-2 framework
        source = tmp_path / 'dumped'
        source.mkdir()
        for row in whole:
            np.savez(source / row['id'].replace('/', '_'), latent=row['mean'][0][None], condition=row['category'])
    assert latents(str(tmp_path / 'taken'), '--from', str(source)) == 0
    taken = ShardSet(tmp_path / 'taken/validation/latents', verify=True)
    variants = 1 if layout == 'latent' else 2
    assert len(taken) == 180 and taken.manifest.producer['weights_hash'] == whole.manifest.producer['weights_hash']
    if layout == 'latent':
        assert 'logvar' not in taken.manifest.columns
    else:
        assert sorted(taken.ids()) == sorted(whole.ids())
    rows = {name.rpartition('_')[2].rpartition('/')[2]: index for index, name in enumerate(taken.ids())}
    order = [rows[name.rpartition('/')[2]] for name in whole.ids()]
    assert np.array_equal(taken.column('category')[order], whole.column('category')[:])
    exact = layout in ('npz', 'latent')
    for name in set(taken.manifest.columns) - {'id', 'category'}:
        np.testing.assert_allclose(
            taken.column(name)[order],
            whole.column(name)[:][:, :variants],
            rtol=0 if exact else 1e-3,
            atol=0 if exact else 1e-4,
        )
    own, other = (cache.manifest.notes['statistics']['mean'] for cache in (taken, whole))
    np.testing.assert_allclose(own, other, rtol=1e-9 if exact else 1e-2, atol=1e-4)


def damaged(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def with_code(file: Path) -> None:
    torch.save({'moments': print}, file)


def infinite(file: Path) -> None:
    value = torch.load(file, weights_only=True)
    value['moments'][0, 0] = torch.inf
    torch.save(value, file)


@pytest.mark.parametrize(
    ('change', 'words'), [(damaged, '00001.pt'), (with_code, 'more than tensors'), (infinite, 'numbers that are not finite')]
)
def test_a_bad_file_is_named(home: Path, change: Any, words: str, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(home / 'cache/validation/ptshard', tmp_path / 'bad')
    change(tmp_path / 'bad/shard_00001.pt')
    assert latents(str(tmp_path / 'taken'), '--from', str(tmp_path / 'bad')) == 2
    said = capsys.readouterr().err
    assert words in said and 'shard_00001.pt' in said, said


def test_latents_of_other_weights_are_not_taken(home: Path, tmp_path: Path, capsys: Any) -> None:
    assert latents(str(tmp_path / 'taken'), '--from', 'cache/validation/npz', weights='other') == 2
    said = capsys.readouterr().err
    assert 'are not those of the tokenizer with weights' in said and 'Give the weights that made them' in said
    assert latents(str(tmp_path / 'taken'), '--from', 'cache/validation/npz', '--image-size', '64') == 2
    assert 'and the tokenizer makes (16, 8, 8)' in capsys.readouterr().err


def test_an_export_of_other_latents_is_not_continued(home: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(home / 'cache', tmp_path / 'cache')
    shutil.rmtree(tmp_path / 'cache/validation/latents')
    assert latents(str(tmp_path / 'cache'), '--classes', '3', '7', '--image-size', '64', '--format', 'npz') == 2
    assert 'holds latents of another tokenizer or of other images' in capsys.readouterr().err
    about = json.loads((tmp_path / 'cache/validation/latents/manifest.json').read_text())
    assert about['count'] == 36 and about['producer']['classes'] == [3, 7] and about['producer']['latent_shape'] == [8, 8, 8]
