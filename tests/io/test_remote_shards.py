"""Sets of shards at an address: the same rows, a manifest in place of an index, and copies that are never trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.io.remote_places import Remote
from tests.io.test_shards import make
from vq.core.errors import UserError
from vq.core.random import python_stream
from vq.data import remote_root
from vq.data.datasets.tokens import TokenDataset
from vq.io import remote
from vq.io.remote_cache import cache
from vq.io.shards import ShardSet
from vq.io.tensorfile import Damaged


@pytest.fixture
def both(there: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Remote, ShardSet]:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    monkeypatch.setattr(remote_root, '_listings', {})
    make(tmp_path / 'tokens', size=25).finish()
    for path in sorted((tmp_path / 'tokens').iterdir()):
        there.put(f'out/tokens/{path.name}', path.read_bytes())
    return there, ShardSet(tmp_path / 'tokens')


def changed(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.slow
def test_the_same_rows(both):
    there, here = both
    away = ShardSet(there.url('out/tokens'))
    assert len(away) == len(here) and away.ids() == here.ids()
    for index in (0, 24, 25, 96):
        assert np.array_equal(away[index]['tokens'], here[index]['tokens']) and away[index]['id'] == here[index]['id']
    assert np.array_equal(away.column('category')[:], here.column('category')[:])
    away.verify()


@pytest.mark.slow
def test_only_what_is_used_is_fetched(both):
    there, _ = both
    there.proxy.faults, there.proxy.matching = [('cut', 100), ('status', 500)], 'shard-00001'
    row = ShardSet(there.url('out/tokens'))[30]
    assert row['id'] == 'digits/ü30' and not there.proxy.faults
    assert {path.rpartition('/')[2][:11] for _, path, _ in there.proxy.requests} == {'manifest.js', 'shard-00001'}


@pytest.mark.slow
def test_tokens_at_an_address(both):
    there, here = both
    for folder in ('out/tokens', 'out') if there.scheme == 's3' else ('out/tokens',):
        dataset = TokenDataset(folder=there.url(folder), random_variant=False)
        assert dataset.is_there() and len(dataset) == len(here)
        assert dataset.load(3, python_stream('x'))['tokens'].tolist() == here[3]['tokens'][0].tolist()
    assert dataset.fingerprint() == TokenDataset(folder=str(here.folder)).fingerprint()
    with pytest.raises(UserError, match='elsewhere') as caught:
        len(TokenDataset(folder=there.url('elsewhere')))
    assert caught.value.hint


@pytest.mark.slow
def test_a_shard_that_was_changed_there_is_named(both):
    there, _ = both
    name = 'out/tokens/shard-00002-of-00004.safetensors'
    there.put(name, changed(there.names[name]))
    with pytest.raises(Damaged, match='shard-00002') as caught:
        ShardSet(there.url('out/tokens'))[60]
    assert 'SHA-256' in caught.value.message
    there.put(name, there.names[name][:-1])
    with pytest.raises(UserError, match=r'shard-00002.* bytes, and manifest.json says'):
        ShardSet(there.url('out/tokens'))[60]


@pytest.mark.slow
def test_a_copy_that_is_damaged_or_gone_is_fetched_again(both):
    there, here = both
    shards = ShardSet(there.url('out/tokens'))
    path = remote.local_file(there.url('out/tokens/shard-00001-of-00004.safetensors'))
    path.write_bytes(changed(path.read_bytes()))
    assert np.array_equal(shards[30]['tokens'], here[30]['tokens'])
    shards._open.clear()
    cache().delete(path.parent)
    assert np.array_equal(shards[31]['tokens'], here[31]['tokens'])
    shards._open.clear()
    path.unlink()
    assert np.array_equal(shards[32]['tokens'], here[32]['tokens'])


@pytest.mark.slow
def test_a_small_cache_reads_a_large_set(both, monkeypatch):
    there, here = both
    monkeypatch.setenv('VQ_CACHE_GB', str(3.5 * max(entry.size for entry in here.manifest.shards) / 1e9))
    shards = ShardSet(there.url('out/tokens'))
    for index in (0, 30, 60, 90, 1, 31, 61, 91):
        assert np.array_equal(shards[index]['tokens'], here[index]['tokens'])
    assert len(shards._open) == 1
    size = sum(path.stat().st_size for path in (cache().folder / 'entries').rglob('*') if path.is_file())
    assert size <= cache().limit
