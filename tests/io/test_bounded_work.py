"""Files that claim more than they hold cost no more time or memory than their size, and are refused with a message."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.io.samples import sample
from tests.io.test_shards import make
from vq.core.errors import UserError
from vq.core.paths import parse_path
from vq.core.reading import parse_json, read_bytes
from vq.data.datasets.tokens import TokenDataset
from vq.io import adm, bounds, checkpoints, history, plain, spec, tensorfile, weights
from vq.io.llamagen_codes import import_codes
from vq.io.published import statistics
from vq.io.published.reader import read_state
from vq.io.shards import Shard, ShardSet, ShardWriter
from vq.io.writer import Writer
from vq.metrics.features.reference import read_reference


@pytest.fixture(autouse=True)
def _in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that hangs fails."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError('this took 20 seconds')

    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refuse(action: Callable[[], Any], *words: str) -> None:
    with pytest.raises(UserError) as caught:
        action()
    assert caught.value.hint and all(word in caught.value.message for word in words), caught.value.message


# shards


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('shards') / 's'
    make(folder, total=5).finish()
    return folder


@pytest.fixture
def manifest(made: Path, tmp_path: Path) -> Callable[..., None]:
    shutil.copytree(made, tmp_path / 's')
    file = tmp_path / 's' / 'manifest.json'

    def change(text: str | None = None, **values: Any) -> None:
        file.write_text(text or json.dumps({**json.loads(file.read_text()), **values}))

    return change


@pytest.mark.parametrize('complete', [True, False])
@pytest.mark.parametrize('total', [10**9, 10**18, 10**4000])
def test_a_manifest_that_claims_any_number_of_samples(manifest: Callable[..., None], total: int, complete: bool) -> None:
    manifest(total=total, shard_size=1, complete=complete, shards=[])
    refuse(lambda: ShardSet('s'), 's')
    assert not [name for name in os.listdir('s') if name.startswith('.')]


def test_an_incomplete_set_counts_the_shards_that_are_there(manifest: Callable[..., None]) -> None:
    manifest(complete=False, shards=[])
    refuse(lambda: ShardSet('s'), '2 of 2 shards')


@pytest.mark.parametrize(
    'text', ['[' * 100_000, '{"a":' * 100_000, json.dumps({'total': 0}).replace('0', '9' * 5000), '{' + ' ' * 65_000_000 + '}']
)
def test_a_manifest_that_is_nested_or_endless(manifest: Callable[..., None], text: str) -> None:
    manifest(text)
    refuse(lambda: ShardSet('s'), 'manifest.json')
    refuse(lambda: ShardWriter('s', 'tokens', 8, 4, {'codebook_size': 16}), 'manifest.json')


@pytest.mark.parametrize(
    'columns',
    [
        {'tokens': 5},
        {'id': {'dtype': 'object', 'shape': []}},
        {'id': {'dtype': 'bytes', 'shape': [-1]}},
        {'tokens': {'dtype': 'uint16', 'shape': [2, 2, 3]}},
    ],
)
def test_a_manifest_of_odd_columns(manifest: Callable[..., None], columns: dict[str, Any]) -> None:
    manifest(columns=columns)
    refuse(lambda: ShardSet('s'), 'contradicts itself')


def test_a_manifest_without_the_columns_of_a_token_dataset(manifest: Callable[..., None]) -> None:
    manifest(columns={'id': {'dtype': 'bytes', 'shape': []}}, kind='images')
    refuse(lambda: TokenDataset(folder='s').shards, 'category, tokens')


def write(arrays: dict[str, np.ndarray], notes: dict[str, str]) -> Path:
    with Writer(Path('x.safetensors')) as writer:
        tensorfile.write_tensors(writer, arrays, notes)
    return Path('x.safetensors')


IDS = {'id.bytes': np.full(2, 65, np.uint8), 'id.offsets': np.array([0, 1, 2])}


@pytest.mark.parametrize('skipped', ['[' * 100_000, '5', '[5]', '"ab"', '{"a": 1}'])
def test_a_shard_of_odd_skipped_samples(skipped: str) -> None:
    path = write(IDS, {'vq.skipped': skipped})
    refuse(lambda: Shard(path), 'skipped')


@pytest.mark.parametrize(
    'arrays',
    [
        {**IDS, 'id.offsets': np.zeros(0, np.int64)},
        {**IDS, 'id.offsets': np.zeros((1, 1), np.int64)},
        {'id.offsets': IDS['id.offsets']},
    ],
)
def test_a_shard_of_odd_ids(arrays: dict[str, np.ndarray]) -> None:
    path = write(arrays, {})
    refuse(lambda: Shard(path), 'damaged')


def test_an_id_that_is_not_text() -> None:
    path = write({**IDS, 'id.bytes': np.full(2, 255, np.uint8)}, {})
    refuse(lambda: Shard(path).ids(), 'UTF-8')


def test_llamagen_arrays_that_claim_more_than_they_hold() -> None:
    for folder in ('codes', 'labels'):
        os.makedirs(f'imagenet16_{folder}')
        with open(f'imagenet16_{folder}/0.npy', 'wb') as file:
            np.lib.format.write_array_header_1_0(file, {'descr': '<i8', 'fortran_order': False, 'shape': (2**50,)})
    refuse(lambda: import_codes(Path(), Path('o'), image_size=16, codebook_size=4, token_shape=(2, 2)), '0.npy')


# weights


def nested(depth: int, key: bytes = b'state_dict') -> Path:
    """A torch file of dicts in dicts, which ``torch.save`` itself cannot write."""
    start = b'}X' + len(key).to_bytes(4, 'little') + key
    torch.save({'w': torch.zeros(1)}, 'y.pth')
    with zipfile.ZipFile('y.pth') as source, zipfile.ZipFile('x.pth', 'w') as target:
        for name in source.namelist():
            deep = b'\x80\x02' + start * depth + b'}' + b's' * depth + b'.'
            target.writestr(name, deep if name.endswith('data.pkl') else source.read(name))
    return Path('x.pth')


READERS: dict[str, Callable[[Path], Any]] = {
    'weights': weights.read_weights,
    'foreign': lambda path: read_state(path, ['state_dict']),
    'statistics': statistics.convert,
    'plain': plain.read_torch,
}


@pytest.mark.parametrize('reader', READERS)
def test_20000_nested_keys(reader: str) -> None:
    path = nested(20_000)
    refuse(lambda: READERS[reader](path), 'nested deeper than 100')


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_expanded_tensors(reader: str, legacy: bool, dtype: torch.dtype) -> None:
    """Tens of gigabytes, if someone copied them, from a file of a kilobyte."""
    state = {'a': torch.zeros(3), 'w': torch.ones(1, 3, dtype=dtype).expand(2**31, 3)}
    torch.save(state, 'x.pth', _use_new_zipfile_serialization=not legacy)
    assert Path('x.pth').stat().st_size < 3000
    refuse(lambda: READERS[reader](Path('x.pth')), 'take', 'the file has')


def test_many_views_of_one_tensor() -> None:
    whole = torch.zeros(2**20)
    torch.save({str(index): whole[index:] for index in range(200)}, 'x.pth')
    refuse(lambda: weights.read_weights('x.pth'), 'take')


def test_tied_and_slightly_expanded_tensors_are_accepted() -> None:
    torch.save({'a': (tied := torch.ones(2**20)), 'b': tied, 'c': torch.zeros(1).expand(1, 4096)}, 'x.pth')
    assert weights.read_weights('x.pth')[0]['c'].shape == (1, 4096)


@pytest.mark.slow
def test_lists_that_hold_each_other_twice() -> None:
    value: Any = [torch.zeros(2)]
    for _ in range(60):
        value = [value, value]
    torch.save({'state': value}, 'x.pth')
    refuse(lambda: weights.read_weights('x.pth'), 'not a state dict')
    refuse(lambda: statistics.convert(Path('x.pth')), 'could be the mean')


def test_a_dict_that_holds_itself() -> None:
    value: dict[str, Any] = {}
    value['model'] = value
    torch.save(value, 'x.pth')
    refuse(lambda: weights.read_weights('x.pth'), 'not a state dict')


@pytest.mark.parametrize('reader', READERS)
def test_a_torch_file_that_expands(reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, 'FREE', 1000)
    torch.save({'w': torch.zeros(2**18)}, 'y.pth')
    with zipfile.ZipFile('y.pth') as source, zipfile.ZipFile('x.pth', 'w', zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    refuse(lambda: READERS[reader](Path('x.pth')), 'expand to')
    assert weights.read_weights('y.pth')[0]['w'].shape == (2**18,)


@pytest.mark.parametrize('length', [b'\xff\xff\xff\x7f', b'\xff\xff\xff\xff'])
def test_a_text_longer_than_its_file(length: bytes) -> None:
    torch.save({'weight': torch.zeros(1)}, 'x.pth', _use_new_zipfile_serialization=False)
    data = Path('x.pth').read_bytes()
    Path('x.pth').write_bytes(data.replace(b'X\x06\x00\x00\x00weight', b'X' + length + b'weight'))
    for reader in READERS.values():
        refuse(lambda reader=reader: reader(Path('x.pth')), 'x.pth')  # type: ignore[misc]


def test_a_zip_file_of_several_disks() -> None:
    torch.save({'weight': torch.zeros(1)}, 'x.pth')
    data = Path('x.pth').read_bytes()
    place = data.rindex(b'PK\x06\x07') + 16  # the number of disks, of the zip64 locator
    Path('x.pth').write_bytes(data[:place] + b'\x05' + data[place + 1 :])
    for reader in READERS.values():
        with contextlib.suppress(UserError):  # torch does not mind; what matters is that nothing else is raised
            reader(Path('x.pth'))


def test_a_zip_file_that_lost_a_block() -> None:
    """The directory at its end then points before its beginning."""
    torch.save({'w': torch.zeros(16)}, 'y.pth')
    data = Path('y.pth').read_bytes()
    for start in range(4, len(data), 37):
        Path('x.pth').write_bytes(data[:start] + data[start + 64 :])
        for reader in READERS.values():
            refuse(lambda reader=reader: reader(Path('x.pth')), 'x.pth')  # type: ignore[misc]


def test_damaged_objects_of_other_projects() -> None:
    """A changed bit in the pickle, which torch can read and whose checksum differs."""
    torch.save({'state_dict': {'w': torch.zeros(1)}, 'hyper': argparse.Namespace(lr=5, name='abcdef')}, 'y.pth')
    data = Path('y.pth').read_bytes()
    Path('x.pth').write_bytes(data.replace(b'abcdef', b'abcdeg'))
    refuse(lambda: read_state(Path('x.pth'), ['state_dict']), 'x.pth')
    assert read_state(Path('y.pth'), ['state_dict'])['w'].shape == (1,)


def test_storages_that_a_legacy_file_does_not_have() -> None:
    torch.save({'w': torch.zeros(3)}, 'y.pth', _use_new_zipfile_serialization=False)
    data = Path('y.pth').read_bytes()
    key = max(re.findall(rb'\d{8,}', data), key=data.count)
    Path('x.pth').write_bytes(data.replace(key, key[:-1] + bytes([key[-1] ^ 1]), 1))
    refuse(lambda: weights.read_weights('x.pth'), 'x.pth')


def test_a_legacy_file_cut_anywhere() -> None:
    torch.save({'w': torch.zeros(1)}, 'y.pth', _use_new_zipfile_serialization=False)
    data = Path('y.pth').read_bytes()
    for size in range(2, len(data), 3):
        Path('x.pth').write_bytes(data[:size])
        refuse(lambda: weights.read_weights('x.pth'), 'x.pth')


def test_keys_of_20000_parts_are_only_text() -> None:
    torch.save({'.'.join('a' * 20_000): torch.zeros(1)}, 'x.pth')
    refuse(lambda: weights.load_model_from(nn.Linear(2, 2), ['x.pth']), 'another architecture')


@pytest.mark.parametrize(
    'header',
    [
        '{"a":' * 100_000,
        json.dumps({'a': {'dtype': 'U8', 'shape': [10**4299], 'data_offsets': [0, 10**4299]}}),
        json.dumps({'a': {'dtype': 'U8', 'shape': [2**62] * 1000, 'data_offsets': [0, 2**62]}}),
        json.dumps({'__metadata__': {'vq.tied': '[' * 100_000}, 'a': {'dtype': 'U8', 'shape': [0], 'data_offsets': [0, 0]}}),
    ],
)
def test_safetensors_headers(header: str) -> None:
    Path('x.safetensors').write_bytes(len(header).to_bytes(8, 'little') + header.encode())
    refuse(lambda: weights.read_weights('x.safetensors'), 'damaged')


# archives of arrays


def archive(
    shape: tuple[int, ...], size: int, name: str = 'arr_0', kind: str = '|u1', method: int = zipfile.ZIP_STORED
) -> Path:
    """An ``.npz`` with ``size`` bytes of zeros, whose header claims ``shape``."""
    with zipfile.ZipFile('x.npz', 'w', method) as file, file.open(f'{name}.npy', 'w', force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, {'descr': kind, 'fortran_order': False, 'shape': shape})
        member.write(bytes(size))
    return Path('x.npz')


@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_npz_headers_that_claim_more_than_the_file(method: int) -> None:
    refuse(lambda: adm.open_samples(archive((10**6, 256, 256, 3), 100, method=method)), 'says')
    refuse(lambda: read_reference(archive((2**40,), 100, 'mu', '<f8', method)), 'says')


def test_npz_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adm, 'FREE', 1000)
    shape = (64, 64, 64, 3)
    refuse(lambda: adm.open_samples(archive(shape, 64**3 * 3, method=zipfile.ZIP_DEFLATED)), 'expands')
    refuse(lambda: read_reference(archive((2**17,), 2**20, 'mu', '<f8', zipfile.ZIP_DEFLATED)), 'expands')
    assert adm.open_samples(archive(shape, 64**3 * 3)).shape == shape, 'memory-mapped: nothing expands'


@pytest.mark.parametrize(
    'header', ["{'shape': (1, }", "{'descr': '|u1'", '(' * 5000, '\0', "{'descr': '|u1', 'shape': (-1,)}"]
)
def test_npz_headers_that_are_no_dict(header: str) -> None:
    content = b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header.encode()
    with zipfile.ZipFile('x.npz', 'w') as file:
        file.writestr('arr_0.npy', content)
        file.writestr('mu.npy', content)
    refuse(lambda: adm.open_samples(Path('x.npz')), 'x.npz')
    refuse(lambda: read_reference('x.npz'), 'x.npz')


def test_npz_of_many_arrays() -> None:
    with zipfile.ZipFile('x.npz', 'w') as file:
        for index in range(1001):
            file.writestr(f'{index}.npy', b'')
    refuse(lambda: adm.open_samples(Path('x.npz')), '1,001 arrays')


# numbers of thousands of digits


def test_5000_digit_lengths() -> None:
    digits = '9' * 5000
    refuse(lambda: [*history.expand_braces(f'iter_{{1..{digits}}}')], 'range of steps')
    refuse(lambda: parse_path(f'.a[{digits}]'), 'cannot be read')
    with pytest.raises(ValueError, match='digits'):
        parse_json(digits)


# pipes and devices in the place of files


def test_pipes_are_not_waited_for() -> None:
    path = checkpoints.save(Path('run/checkpoints'), sample(4, 1.0))
    for name in ('COMPLETE', 'metrics.json', 'spec.json'):
        (path / name).unlink(missing_ok=True)
        os.mkfifo(path / name)
    os.makedirs('s')
    os.mkfifo('s/manifest.json')
    refuse(lambda: checkpoints.load(path), 'not a complete checkpoint')
    refuse(lambda: spec.read(path / 'spec.json'), 'regular file')
    refuse(lambda: ShardSet('s'), 'regular file')
    refuse(lambda: tensorfile.read_header(path / 'spec.json'), 'regular file')
    refuse(lambda: weights.sniff(path / 'spec.json'), 'regular file')


def test_a_file_that_never_ends_is_not_read() -> None:
    with pytest.raises(OSError, match='regular file'):
        read_bytes('/dev/zero')
    with open('large', 'wb') as file:
        file.truncate(10**12)
    with pytest.raises(ValueError, match='at most'):
        read_bytes('large')
