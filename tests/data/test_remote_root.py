"""Datasets whose images are at an address: the same samples as from a local folder, in one version."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.test_packed import write
from tests.io.remote_places import Remote
from vq.core.errors import ConfigError, RunFailure, UserError
from vq.core.random import python_stream
from vq.data import remote_root
from vq.data.datasets.folder import FolderDataset
from vq.data.datasets.imagenet import ImageNetDataset
from vq.data.datasets.packed import PackedDataset
from vq.data.decode import BadImage
from vq.data.remote_root import RemotePath, place

NAMES = [f'{split}/{kind}/{n} é.png' for split in ('train', 'val') for kind in ('cat', 'dog') for n in range(2)]


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)).save(buffer, 'PNG')
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _listed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_root, '_listings', {})


@pytest.fixture
def both(there: Remote, tmp_path: Path) -> tuple[Remote, Path]:
    """The same images at an address and in a folder."""
    for seed, name in enumerate([*NAMES, 'train/.hidden.png', 'notes.txt']):
        there.put(name, picture(seed))
        (tmp_path / 'data' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'data' / name).write_bytes(picture(seed))
    there.list_files()
    return there, tmp_path / 'data'


def samples(dataset: Any) -> list[Any]:
    found = [dataset.load(index, python_stream('x', index)) for index in range(len(dataset))]
    return [(sample['id'], sample['category'], sample['image'].tolist()) for sample in found]


@pytest.mark.slow
@pytest.mark.parametrize('kind', [FolderDataset, ImageNetDataset])
@pytest.mark.parametrize('split', ['train', 'validation'])
def test_the_same_samples_as_from_a_folder(both, kind, split):
    there, folder = both
    here, away = (kind(root, split=split, name='x') for root in (folder, there.url()))
    assert samples(away) == samples(here) and away.categories == here.categories == ('cat', 'dog')
    assert away.fingerprint() == here.fingerprint()
    asked = len(there.proxy.requests)
    assert samples(pickle.loads(pickle.dumps(away))) == samples(here)
    again = [method for method, *_ in there.proxy.requests[asked:]]
    assert again == ([] if there.scheme == 's3' else ['HEAD'] * len(away)), 'S3 lists versions, so the cache needs no question'


@pytest.mark.slow
def test_images_that_changed_after_the_listing(both):
    there, _ = both
    dataset = FolderDataset(there.url())
    assert len(dataset) == 4
    there.put(NAMES[0], picture(99))
    if there.scheme == 's3':
        with pytest.raises(RunFailure, match='has changed since'):
            dataset.read(0)
    else:
        assert dataset.read(0).shape == (6, 5, 3)
    there.put(NAMES[1], b'no image')
    if there.scheme == 'http':
        with pytest.raises(BadImage, match='not an image'):
            dataset.read(1)


def test_an_outage_is_no_bad_image(both):
    """Bad images may be skipped; a server that is away must not look like a thousand of them."""
    there, _ = both
    dataset = FolderDataset(there.url())
    assert len(dataset) == 4
    there.proxy.faults = [('status', 500)] * 20
    with pytest.raises(RunFailure, match='cannot be read'):
        dataset.read(0)


def test_what_is_not_there(there):
    there.put('data/a.txt', b'x')
    there.list_files()
    with pytest.raises(ConfigError, match=r'holds no image .*1 x \.txt'):
        len(FolderDataset(there.url()))
    wrong = {'http': (UserError, r'has no index\.txt'), 's3': (ConfigError, 'holds no file')}[there.scheme]
    with pytest.raises(wrong[0], match=wrong[1]) as caught:
        len(FolderDataset(there.url('elsewhere')))
    assert caught.value.hint


@pytest.mark.parametrize('line', ['../x.png', '/x.png', 'a//b.png', 'a.png\tmany', 'a.png\t1\t2\t3'])
def test_an_index_that_is_no_list_of_paths(there, line):
    if there.scheme == 's3':
        pytest.skip('S3 lists its keys itself')
    there.names[line] = b''
    there.list_files()
    with pytest.raises(UserError, match=r'line 1 of .*index\.txt'):
        len(FolderDataset(there.url()))


def test_local_roots_stay_paths():
    assert type(place('data')) is type(place(Path('data'))) is type(Path()) and place('~').is_absolute()
    assert isinstance(place('s3://bucket/a/'), RemotePath) and str(place('s3://bucket/a/') / 'b/c') == 's3://bucket/a/b/c'
    assert str(place('http://host/a') / 'b c#.png') == 'http://host/a/b%20c%23.png'


def test_an_lmdb_file(tmp_path):
    lmdb = pytest.importorskip('lmdb')
    names = ['train/cat/0.png', 'train/dog/1.png']
    with lmdb.open(str(tmp_path / 'x.lmdb')) as file, file.begin(write=True) as transaction:
        for seed, name in enumerate(names):
            transaction.put(name.encode(), picture(seed))
    dataset = FolderDataset(f'lmdb://{tmp_path}/x.lmdb')
    assert [dataset.id_of(index) for index in range(len(dataset))] == names and dataset.categories == ('cat', 'dog')
    assert np.array_equal(dataset.read(1), np.asarray(Image.open(io.BytesIO(picture(1)))))
    with pytest.raises(UserError, match='cannot be opened') as caught:
        len(FolderDataset(f'lmdb://{tmp_path}/y.lmdb'))
    assert 'LMDB' in caught.value.hint


def test_annotations_at_an_address(both):
    there, folder = both
    synsets = {'1': {'WNID': 'dog', 'words': 'a dog'}, '2': {'WNID': 'cat', 'words': 'a cat'}}
    images = [{'image': '1 é.png', 'synset_id': 2}, {'image': '0 é.png', 'synset_id': 1}]
    for name, value in {'synsets.json': synsets, 'annotations/train.json': images}.items():
        there.put(name, json.dumps(value).encode())
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    there.list_files()
    here, away = ImageNetDataset(folder), ImageNetDataset(there.url())
    assert samples(away) == samples(here) and away.categories == ('a cat', 'a dog') and len(away) == 2


@pytest.mark.slow
def test_packed_images_at_an_address(both):
    there, folder = both
    (folder / 'val').rename(folder / 'validation')
    write(folder, folder / 'packed')
    for path in (folder / 'packed').rglob('*'):
        if path.is_file():
            there.put(path.relative_to(folder).as_posix(), path.read_bytes())
    here, away = PackedDataset(folder / 'packed'), PackedDataset(there.url('packed'))
    assert samples(away) == samples(here) and len(away) == 4
    with pytest.raises(ConfigError, match=r'no packed images of the split .test.'):
        len(PackedDataset(there.url('packed'), split='test'))
