"""Remote files, over S3 and http: right through faults, never a mixture of versions, kept within a bound."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
from pathlib import Path

import pytest

from tests.io.remote_places import Remote
from vq.core.errors import RunFailure, UserError
from vq.io import remote, stores
from vq.io.remote_cache import Cache, cache, key_of
from vq.io.stores import Stat

DATA = random.Random(0).randbytes(300_000)
FAULTS = {
    'a status 500': ('status', 500),
    'a cut': ('cut', 1000),
    'silence': ('slow', 1.0),
    'too many requests': ('status', 429),
}


@pytest.mark.slow
@pytest.mark.parametrize('fault', FAULTS.values(), ids=FAULTS)
def test_a_fault_that_passes_is_not_seen(there: Remote, fault, monkeypatch):
    there.put('a b/x#1.bin', DATA)
    if fault[0] == 'slow':  # elsewhere a busy machine would be asked twice
        monkeypatch.setattr(stores, 'SILENCE', 0.5)
    there.proxy.faults = [fault, fault]
    assert remote.read_bytes(there.url('a b/x#1.bin') if there.scheme == 's3' else there.url('a%20b/x%231.bin')) == DATA
    assert not there.proxy.faults


@pytest.mark.slow
def test_a_fault_that_stays_is_an_error(there: Remote):
    there.put('x', DATA)
    there.proxy.faults = [('status', 503)] * 50
    with pytest.raises(RunFailure, match=r'status 503.*5 attempts') as caught:
        remote.read_bytes(there.url('x'))
    assert there.url('x') in caught.value.message and caught.value.hint
    there.proxy.faults = []
    with pytest.raises(FileNotFoundError):
        remote.read_bytes(there.url('y'))
    with pytest.raises(ValueError, match='at most 1,000'):
        remote.read_bytes(there.url('x'), largest=1000)


def test_content_is_cached_until_it_changes(there: Remote):
    there.put('x', DATA)
    assert remote.read_bytes(there.url('x')) == remote.read_bytes(there.url('x')) == DATA
    assert [method for method, *_ in there.proxy.requests] == ['HEAD', 'GET', 'HEAD']
    known = remote.stat(there.url('x'))
    there.put('x', DATA[::-1])
    assert remote.read_bytes(there.url('x')) == DATA[::-1]
    assert remote.read_bytes(there.url('x'), known) == DATA, 'this version is still in the cache'
    (cache().folder / 'usage').unlink()
    for place in (cache().folder / 'entries').glob('*/*'):
        cache().delete(place)
    with pytest.raises(RunFailure, match='has changed since'):
        remote.read_bytes(there.url('x'), known)


@pytest.mark.slow
def test_a_large_file_comes_by_ranges_and_goes_on(there: Remote, monkeypatch):
    """A call that broke off keeps what it had; the next asks for the rest only. The file has its own name."""
    monkeypatch.setattr(remote, 'PIECE', 10_000)
    there.put('folder/model.safetensors', DATA)
    calls, read = 0, remote.read_range

    def breaking(*arguments):
        nonlocal calls
        calls += 1
        if calls > 12:
            raise KeyboardInterrupt
        return read(*arguments)

    monkeypatch.setattr(remote, 'read_range', breaking)
    with pytest.raises(KeyboardInterrupt):
        remote.local_file(there.url('folder/model.safetensors'))
    monkeypatch.setattr(remote, 'read_range', read)
    there.proxy.requests.clear()
    there.proxy.faults, there.proxy.matching = [('cut', 500), ('status', 500), ('cut', 0)], 'model'
    path = remote.local_file(there.url('folder/model.safetensors'))
    assert path.name == 'model.safetensors' and path.read_bytes() == DATA
    ranges = {wanted for method, _, wanted in there.proxy.requests if method == 'GET'}
    assert len(ranges) <= 18 and 'bytes=0-9999' not in ranges
    there.proxy.requests.clear()
    assert remote.local_file(there.url('folder/model.safetensors')) == path and len(there.proxy.requests) == 1


def test_a_file_that_changes_while_it_is_fetched(there: Remote, monkeypatch):
    monkeypatch.setattr(remote, 'PIECE', 10_000)
    there.put('x', DATA)
    known = remote.stat(there.url('x'))
    there.put('x', DATA[::-1])
    with pytest.raises(RunFailure, match='mix two versions'):
        remote.local_file(there.url('x'), known)


def test_a_slow_sender_counts_as_broken(monkeypatch):
    monkeypatch.setattr(stores, 'PATIENCE', 0.0)
    monkeypatch.setattr(stores, 'SLOWEST', 10**12)
    with pytest.raises(stores.Passing, match='bytes came in'):
        stores.gather(lambda count: b'x', 100)


def test_addresses(monkeypatch):
    assert all(map(remote.is_remote, ('s3://a/b', 'http://a', 'lmdb:///x.lmdb/y')))
    assert not any(map(remote.is_remote, ('a/b', '/a', 'C://x', 's3:/a', Path('s3:/x'), None)))
    with pytest.raises(UserError, match=r'nothing reads addresses gs://') as caught:
        remote.read_bytes('gs://bucket/x')
    assert 's3' in caught.value.hint


# the cache


def entry(number: int) -> str:
    return key_of({'x': (f's3://b/{number}', Stat(100, '"1"'))})


def test_the_cache_keeps_to_its_bound(tmp_path):
    """The entries that were not used for longest go first."""
    kept = Cache(tmp_path, 1000)
    for number in range(10):
        kept.add(entry(number), 'x', bytes(100))
        os.utime(kept.place(entry(number)), (number, number))
    assert kept.read(entry(0), 'x', 100) is not None, 'used just now'
    kept.add(entry(10), 'x', bytes(100))
    found = [number for number in range(11) if kept.find(entry(number))]
    assert found == [0, *range(3, 11)] and int((tmp_path / 'usage').read_text()) == 900
    kept.add(entry(11), 'x', bytes(2000))
    assert not kept.find(entry(11)), 'larger than the bound'
    with pytest.raises(UserError, match='keeps at most') as caught, kept.filling(entry(11), 2000, 's3://b/11'):
        pass
    assert 'VQ_CACHE_GB' in caught.value.hint


def test_a_torn_entry_is_not_used(tmp_path):
    kept = Cache(tmp_path, 1000)
    kept.add(entry(1), 'x', bytes(100))
    (kept.place(entry(1)) / 'x').write_bytes(bytes(50))
    assert kept.read(entry(1), 'x', 100) is None and kept.find(entry(1)) is None


def test_a_copy_that_cannot_be_kept_costs_nothing_else(tmp_path, caplog):
    kept = Cache(tmp_path, 1000)
    (tmp_path / 'entries').write_bytes(b'')  # in the way
    kept.add(entry(1), 'x', bytes(100))
    assert 'cannot be kept' in caplog.text and not list((tmp_path / 'unfinished').iterdir())


def _fill(folder: Path, results: multiprocessing.Queue) -> None:
    kept = Cache(folder, 3000)
    for number in [n % 40 for n in range(os.getpid(), os.getpid() + 80)]:
        with kept.filling(entry(number), 100, 'x') as unfinished:
            if unfinished is not None:
                (unfinished / 'x').write_bytes(bytes([number]) * 100)
        found = kept.read(entry(number), 'x', 100)
        if found not in (None, bytes([number]) * 100):
            results.put(number)


@pytest.mark.slow
def test_several_processes_share_a_cache(tmp_path):
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    workers = [context.Process(target=_fill, args=(tmp_path, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0] and results.empty()
    size = sum(path.stat().st_size for path in (tmp_path / 'entries').rglob('x'))
    assert 0 < size <= 3000 and not list((tmp_path / 'unfinished').iterdir())


@pytest.mark.slow
def test_one_process_fetches_and_the_others_wait(there: Remote, monkeypatch):
    there.put('x', DATA)
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(remote.local_file(there.url('x')).read_bytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [DATA] * 4 and [method for method, *_ in there.proxy.requests].count('GET') == 1


@pytest.mark.parametrize('text', ['many', '-1', 'nan'])
def test_the_bound_is_a_number(text, monkeypatch):
    monkeypatch.setenv('VQ_CACHE_GB', text)
    with pytest.raises(UserError, match='VQ_CACHE_GB'):
        cache()
