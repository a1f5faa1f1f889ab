"""Shards are verified: size and manifest when a set is opened, checksum and tokens when a shard is first read, once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vq.core.errors import UserError
from vq.data.datasets.tokens import TokenDataset
from vq.data.loading import Loader, LoaderSettings
from vq.data.plan import training_plan
from vq.io import checked, shard_set
from vq.io.manifest import read_manifest
from vq.io.shards import ShardRange, ShardSet, ShardWriter

TOTAL, SIZE = 23, 5  # odd, and the last shard is short
SHARDS = 5
CODES = 300


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards whose SHA-256 is computed."""
    names: list[str] = []
    real = shard_set.read_digest

    def watch(path: str | Path) -> str:
        names.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(shard_set, 'read_digest', watch)
    return names


def writer_of(folder: Path, kind: str = 'tokens') -> ShardWriter:
    shape = {'codebook_size': CODES, 'token_shape': [3], 'variants': ['center']} if kind == 'tokens' else {}
    return ShardWriter(folder, kind, TOTAL, SIZE, {'weights_hash': 'w', **shape})


def columns_of(part: ShardRange, kind: str) -> dict[str, Any]:
    rows = np.arange(part.start, part.stop)
    if kind == 'tokens':
        tokens = (rows[:, None, None] * 7 + np.arange(3)) % CODES
        return {'tokens': tokens, 'category': rows % 3}
    return {'latent': np.random.default_rng(part.index).standard_normal((len(part), 4, 3, 3)).astype(np.float16)}


def write(folder: Path, kind: str = 'tokens') -> Path:
    writer = writer_of(folder, kind)
    for part in writer.pending(0, 1):
        writer.write(part, columns_of(part, kind), [f'{kind}/{index:02}' for index in range(part.start, part.stop)])
    writer.finish()
    return folder


def shard(folder: Path, index: int) -> Path:
    return folder / f'shard-{index:05d}-of-{SHARDS:05d}.safetensors'


def flip(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize('kind', ['tokens', 'latents'])
def test_a_flipped_bit_is_named_when_the_shard_is_first_read(tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path / 'set', kind)
    for place in (-1, -40):
        flip(shard(folder, 2), place)
    found = ShardSet(folder)  # opening looks at sizes and the manifest only
    assert found[0]['id'] == f'{kind}/00'
    name = {'tokens': 'tokens', 'latents': 'latent'}[kind]
    for look in (lambda: found[2 * SIZE], lambda: found.column(name)[11:13], lambda: found.column(name)[12], found.ids):
        with pytest.raises(UserError, match=r'shard-00002-of-00005.safetensors is damaged: its SHA-256') as caught:
            look()
        assert 'Delete it and manifest.json' in caught.value.hint
        assert caught.value.exit_code == 2


def test_swapped_shards_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / 'set')
    first, second = shard(folder, 1), shard(folder, 3)
    assert first.stat().st_size == second.stat().st_size
    first.rename(tmp_path / 'aside')
    second.rename(first)
    (tmp_path / 'aside').rename(second)
    found = ShardSet(folder)
    for row in (SIZE, 3 * SIZE):
        with pytest.raises(UserError, match=r'is damaged: its SHA-256 is not the one in the manifest'):
            found[row]


def test_the_shard_of_another_size_is_named_when_the_set_is_opened(tmp_path: Path) -> None:
    folder = write(tmp_path / 'set')
    shard(folder, 4).write_bytes(shard(folder, 0).read_bytes())
    with pytest.raises(UserError, match=r'shard-00004-of-00005.safetensors is damaged: it has \d+ bytes instead of \d+'):
        ShardSet(folder)


@pytest.mark.parametrize(('token', 'column'), [(CODES, np.int64), (65535, np.uint16), (-1, np.int32)])
def test_a_token_beyond_the_codebook_is_named(
    tmp_path: Path, token: int, column: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a set whose checksums are right: another program wrote it."""
    monkeypatch.setattr(ShardWriter, '_narrow', lambda self, tokens: tokens.astype(column))
    writer = writer_of(tmp_path / 'set')
    for part in writer.pending(0, 1):
        columns = columns_of(part, 'tokens')
        if part.index == 3:
            columns['tokens'][1, 0, 2] = token
        writer.write(part, columns, [str(index) for index in range(part.start, part.stop)])
    writer.finish()
    found = ShardSet(tmp_path / 'set')
    assert len(found[0]['tokens']) == 1
    with pytest.raises(UserError, match=rf'shard-00003.* is damaged: it has the token {token}, .* has 300 codes'):
        found[3 * SIZE]
    with pytest.raises(UserError, match='it has the token'):
        ShardSet(tmp_path / 'set', verify=True)


@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
def test_damage_is_named_before_it_trains_anything(tmp_path: Path, workers: int) -> None:
    folder = write(tmp_path / 'set')
    flip(shard(folder, 1))
    dataset = TokenDataset(folder=str(folder))
    plan = training_plan(len(dataset), 4, 0, 1, seed=0)
    seen: list[str] = []
    with Loader(dataset, plan, LoaderSettings(4, workers), 0, training=True) as loader:
        batches = (seen.extend(batch.id) for batch in loader)
        with pytest.raises(UserError, match=r'shard-00001-of-00005.safetensors is damaged'):
            list(batches)
    assert not set(seen) & {f'tokens/{index:02}' for index in range(SIZE, 2 * SIZE)}


# each shard is read once


def test_a_shard_is_checked_once_in_a_process(tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / 'set')
    monkeypatch.setattr(shard_set, '_OPEN', 1)  # every look opens a file again
    found = ShardSet(folder)
    assert read == []
    for _ in range(3):
        for row in (0, 22, 7):
            assert found[row]['tokens'][0].tolist() == [(7 * row + place) % CODES for place in range(3)]
    assert read == [shard(folder, index).name for index in (0, 4, 1)]
    costs = found.checked.costs()
    assert (costs.shards, costs.size) == (3, sum(shard(folder, index).stat().st_size for index in (0, 1, 4)))
    assert costs.seconds > 0
    found.verify()  # reads all of them, whatever is known
    assert len(read) == 3 + SHARDS


def look(found: ShardSet, rows: list[int]) -> None:
    for row in rows:
        found[row]


def test_worker_processes_share_what_was_checked(tmp_path: Path) -> None:
    found = ShardSet(write(tmp_path / 'set'))
    worker = multiprocessing.get_context('fork').Process(target=look, args=(found, [0, 1, 9, 22]))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert [index in found.checked for index in range(SHARDS)] == [True, True, False, False, True]
    assert found.checked.costs().shards == 3
    again = pickle.loads(pickle.dumps(found))  # of a worker that is not forked
    assert [index in again.checked for index in range(SHARDS)] == [True, True, False, False, True]
    assert again[12]['id'] == 'tokens/12'


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as old enough to be recorded."""
    monkeypatch.setattr(checked, 'SETTLED', 0)


@pytest.mark.usefixtures('settled')
def test_a_later_process_does_not_pay_again(tmp_path: Path, read: list[str]) -> None:
    folder = write(tmp_path / 'set')
    before = sorted(os.listdir(folder))
    ShardSet(folder).ids()
    assert len(read) == SHARDS
    later = ShardSet(folder)
    later.ids()
    assert len(read) == SHARDS
    assert later.checked.costs() == (0, 0, 0.0)
    assert sorted(os.listdir(folder)) == before, 'nothing is written into the folder of the set'


@pytest.mark.usefixtures('settled')
def test_what_was_recorded_holds_for_that_very_file_only(tmp_path: Path, read: list[str]) -> None:
    folder = write(tmp_path / 'set')
    ShardSet(folder).ids()
    victim, status = shard(folder, 1), shard(folder, 1).stat()
    flip(victim)
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))  # size and modification time tell nothing
    with pytest.raises(UserError, match='is damaged: its SHA-256'):
        ShardSet(folder)[SIZE]
    assert read[SHARDS:] == [victim.name]


@pytest.mark.usefixtures('settled')
def test_a_record_that_is_old_or_damaged_proves_nothing(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / 'set')
    ShardSet(folder).ids()
    record = checked.record_of(folder)
    lines = record.read_bytes().splitlines(keepends=True)
    assert len(lines) == SHARDS
    record.write_bytes(
        b'\xff\x00 nonsense\n' + lines[0] + lines[1][:-20] + b'\n' + lines[2].replace(b'/300', b'/400') + lines[3]
    )
    read.clear()
    ShardSet(folder).ids()
    assert read == [shard(folder, index).name for index in (1, 2, 4)]
    monkeypatch.setattr(checked, 'VALID', -1)
    read.clear()
    ShardSet(folder).ids()
    assert len(read) == SHARDS


@pytest.mark.usefixtures('settled')
def test_no_place_for_a_record_is_no_error(tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    folder = write(tmp_path / 'set')
    for count in (1, 2):
        ShardSet(folder).ids()
        assert len(read) == count * SHARDS


# the writer


def test_the_writer_does_not_keep_or_bless_a_damaged_shard(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write(tmp_path / 'set')
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    flip(shard(folder, 3))
    write(folder)  # the same command again
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    assert 'shard-00003-of-00005.safetensors is damaged: it is written again' in caplog.text


def test_a_flipped_bit_in_a_set_that_is_not_complete_is_written_again(tmp_path: Path) -> None:
    folder, writer = tmp_path / 'set', writer_of(tmp_path / 'set')
    for part in writer.ranges()[:3]:
        writer.write(part, columns_of(part, 'tokens'), [f'tokens/{index:02}' for index in range(part.start, part.stop)])
    flip(shard(folder, 1))
    assert [part.index for part in writer_of(folder).pending(0, 1)] == [1, 3, 4]


def test_deleting_shard_and_manifest_writes_that_shard_only(tmp_path: Path) -> None:
    """The hint of the error."""
    folder = write(tmp_path / 'set')
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    shard(folder, 2).unlink()
    (folder / 'manifest.json').unlink()
    assert [part.index for part in writer_of(folder).pending(0, 1)] == [2]
    write(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content


def test_sets_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """Their shards have no digest of their own, only the one in the manifest."""
    folder = write(tmp_path / 'set')
    victim = shard(folder, 0)
    data = victim.read_bytes()
    size = int.from_bytes(data[:8], 'little')
    header = json.loads(data[8 : 8 + size])
    del header['__metadata__']['vq.sha256']
    text = json.dumps(header).encode()
    old = len(text).to_bytes(8, 'little') + text + data[8 + size :]
    victim.write_bytes(old)
    manifest = read_manifest(folder)
    manifest.shards[0] = dataclasses.replace(manifest.shards[0], size=len(old), sha256=hashlib.sha256(old).hexdigest())
    manifest.write(folder)
    assert torch.as_tensor(ShardSet(folder)[3]['tokens'].astype(int)).tolist() == [[21, 22, 23]]
    assert writer_of(folder).pending(0, 1) == []
