"""Tars: the index of members, and WebDataset tars as datasets."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vq.core.errors import ConfigError, UserError
from vq.data.datasets.web import WebDataset
from vq.data.decode import BadImage
from vq.data.tar import TarFiles, index_of


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new('RGB', (6, 4), (value, 0, 0)).save(buffer, 'PNG')
    return buffer.getvalue()


def write(path: Path, members: Any, form: int = tarfile.GNU_FORMAT, mode: str = 'w') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=form) as archive:  # type: ignore[call-overload]
        for name, data in dict(members).items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def samples(first: int, count: int) -> dict[str, bytes]:
    found = {}
    for number in range(first, first + count):
        found |= {f'{number:06d}.png': png(number), f'{number:06d}.cls': str(number % 3).encode()}
        found |= {f'{number:06d}.txt': f'word {number}\n'.encode(), f'{number:06d}.json': json.dumps({'k': number}).encode()}
    return found


def ids(dataset: Any) -> list[str]:
    return [dataset.id_of(index) for index in range(len(dataset))]


@pytest.mark.parametrize('form', [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_those_of_tarfile(tmp_path: Path, form: int) -> None:
    long = 'deep/' * 20 + 'name'  # 104 characters: beyond the field of a header
    wide = {} if form == tarfile.USTAR_FORMAT else {'\u00e9' * 120: b'wide'}
    path = write(tmp_path / 'a.tar', {'b': b'x' * 513, './d/c': b'', long: b'long', **wide}, form)
    index, files = index_of(path), TarFiles()
    with tarfile.open(path) as archive:
        expected = [(m.name.removeprefix('./'), m.offset_data, m.size) for m in archive if m.isfile()]
    assert list(zip(index.names, index.offsets.tolist(), index.sizes.tolist(), strict=True)) == expected
    content = [
        files.read(path, *(int(part[i]) for part in (index.offsets, index.sizes, index.checks))) for i in range(len(expected))
    ]
    assert content[0] == b'x' * 513 and content[1:3] == [b'', b'long'] and content[3:] == [b'wide'][: len(wide)]


def test_an_index_is_kept_until_the_tar_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / 'a.tar', {'one': b'1', 'two': b'2'})
    first = index_of(path)
    (kept,) = (tmp_path / 'cache/vq/tars').iterdir()
    with monkeypatch.context() as patch:
        patch.setattr('vq.data.tar.members', None)  # so it is read from the cache
        assert list(index_of(path).names) == ['one', 'two']
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    kept.write_bytes(data)
    assert list(index_of(path).names) == ['one', 'two']  # a damaged index is made again
    write(path, {'three': b'3' * 600})
    assert list(index_of(path).names) == ['three']
    with pytest.raises(UserError, match=r'a\.tar was changed since it was indexed'):
        TarFiles().read(path, *(int(part[0]) for part in (first.offsets, first.sizes, first.checks)))
    assert not kept.exists()


def test_tars_that_are_no_tars_are_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / 'whole.tar', {'a': b'1' * 600, 'b': b'2'}).read_bytes()
    damaged = bytearray(whole)
    damaged[1536 + 3] ^= 1  # the header of b
    cases = {
        'is empty, or cut off': b'',
        'begins with b': b'hello, this is a text' * 100,
        'begins with zeros': bytes(20_480),
        'has 600 bytes': whole[:900],
        'without the mark of the end': whole[:2560],
        'damaged at byte 1,536': bytes(damaged),
    }
    for words, data in cases.items():
        (tmp_path / 'bad.tar').write_bytes(data)
        with pytest.raises(ConfigError, match=words):
            index_of(tmp_path / 'bad.tar')
    with pytest.raises(ConfigError, match='is compressed') as error:
        index_of(write(tmp_path / 'a.tar.gz', {'a': b'1'}, mode='w:gz'))
    assert error.value.hint.startswith('gunzip ')
    assert list(index_of(write(tmp_path / 'none.tar', {})).names) == []


def test_a_checksum_that_is_no_octal_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'nines.tar').write_bytes(b'9' * 20_000)
    with pytest.raises(ConfigError, match='is no tar file'):
        index_of(tmp_path / 'nines.tar')


def test_samples_have_what_their_files_say(tmp_path: Path) -> None:
    write(tmp_path / 'w/00000.tar', samples(0, 3))
    write(tmp_path / 'w/00001.tar', samples(0, 2))
    dataset = WebDataset(tmp_path / 'w')
    assert ids(dataset) == [f'0000{tar}.tar/{number:06d}' for tar, count in ((0, 3), (1, 2)) for number in range(count)]
    sample = dataset.load(2, random.Random(0))
    assert (sample['image'][0, 0].tolist(), sample['category'], sample['text']) == ([2, 0, 0], 2, 'word 2')
    assert dataset.categories is None
    (tmp_path / 'names.txt').write_text('cat\ndog\nfox\n')
    named = WebDataset(tmp_path / 'w', category='json:k', text=None, class_names=str(tmp_path / 'names.txt'))
    assert named.categories == ('cat', 'dog', 'fox')
    assert [named.category_of(index) for index in range(5)] == [0, 1, 2, 0, 1]
    assert 'text' not in named.load(0, random.Random(0))


def test_members_need_not_lie_beside_each_other(tmp_path: Path) -> None:
    """Readers of streams would silently make two samples of these."""
    unordered = sorted(samples(0, 4).items(), key=lambda item: item[0].rpartition('.')[2])
    write(tmp_path / 'w/0.tar', unordered)
    dataset = WebDataset(tmp_path / 'w')
    assert [dataset.load(i, random.Random(0))['text'] for i in range(4)] == [f'word {i}' for i in range(4)]
    write(tmp_path / 'w/1.tar', [('a.png', png(1)), ('a.png', png(2))])
    with pytest.raises(ConfigError, match=r'1\.tar has two members a\.png'):
        len(WebDataset(tmp_path / 'w'))


def test_splits_are_folders_or_held_out(tmp_path: Path) -> None:
    write(tmp_path / 'w/0.tar', samples(0, 10))
    train, validation = (WebDataset(tmp_path / 'w', split, held_out=0.2) for split in ('train', 'val'))
    assert ids(validation) == ['0.tar/000009', '0.tar/000008'] and len(train) == 8
    assert len(WebDataset(tmp_path / 'w', 'all', held_out=0.2)) == 10
    with pytest.raises(ConfigError, match='no split folders'):
        len(WebDataset(tmp_path / 'w', 'validation'))
    write(tmp_path / 'd/train/0.tar', samples(0, 3))
    write(tmp_path / 'd/val/0.tar', samples(0, 2))
    assert ids(WebDataset(tmp_path / 'd', 'validation', held_out=0.2)) == ['val/0.tar/000000', 'val/0.tar/000001']
    with pytest.raises(ConfigError, match=r'no files \.tar .* of the split test in .*; it holds: train, val'):
        len(WebDataset(tmp_path / 'd', 'test'))
    write(tmp_path / 'w/set-train-0.tar', samples(0, 3))
    write(tmp_path / 'w/set-val-0.tar', samples(0, 2))
    with pytest.raises(ConfigError, match=r'named by their splits, and 0\.tar is named by none'):
        len(WebDataset(tmp_path / 'w'))
    (tmp_path / 'w/0.tar').unlink()
    assert [len(WebDataset(tmp_path / 'w', split)) for split in ('train', 'validation', 'all')] == [3, 2, 5]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='does not exist'):
        len(WebDataset(tmp_path / 'none'))
    write(tmp_path / 'w/0.tar', {'a.mp4': b'x', 'a.txt': b'y'})
    with pytest.raises(ConfigError, match='hold no image, only: 1 x mp4, 1 x txt'):
        len(WebDataset(tmp_path / 'w'))
    write(tmp_path / 'w/0.tar', {'a.jpg': b'x', 'a.seg.png': png(1), 'a.png': png(2)})
    with pytest.raises(ConfigError, match=r'several images: a\.jpg, a\.png'):
        len(WebDataset(tmp_path / 'w'))
    chosen = WebDataset(tmp_path / 'w', image='seg.png')
    assert chosen.read(0)[0, 0, 0] == 1
    with pytest.raises(BadImage, match=r'0\.tar/a\.jpg: is not an image'):
        WebDataset(tmp_path / 'w', image='jpg').read(0)
    write(tmp_path / 'w/0.tar', {'a.png': png(0), 'a.cls': b'cat', 'a.json': b'[1'})
    for settings, words in (({}, "is 'cat', which is no class"), ({'category': 'json:k'}, r'a\.json cannot be read')):
        with pytest.raises(UserError, match=words):
            WebDataset(tmp_path / 'w', **settings).load(0, random.Random(0))  # type: ignore[arg-type]


def test_damaged_tars_never_give_a_wrong_sample(tmp_path: Path) -> None:
    """Each flipped byte in a header is an error, or changes nothing that is read."""
    path = write(tmp_path / 'w/0.tar', samples(0, 2))
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    expected = [(name, WebDataset(tmp_path / 'w').read(i).tobytes()) for i, name in enumerate(ids(WebDataset(tmp_path / 'w')))]
    with tarfile.open(path) as archive:
        headers = [member.offset_data - 512 for member in archive]
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        data[int(generator.choice(headers)) + int(generator.integers(512))] ^= 1 << int(generator.integers(8))
        path.write_bytes(data)
        try:
            dataset = WebDataset(tmp_path / 'w')
            assert [(name, dataset.read(i).tobytes()) for i, name in enumerate(ids(dataset))] == expected
        except ConfigError as error:
            refused += '0.tar' in error.message
    assert refused > 150
