"""Downloads are atomic, for any failure of server, network or disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.io.serving import FileServer, closed_port, serving, stay_on_this_machine
from vq.core.errors import RunFailure, UserError
from vq.io import download as module
from vq.io.download import Received, check_inside, download, on_another_host
from vq.io.partial_download import PartialDownload

DATA = random.Random(0).randbytes(700_001)  # several chunks and one byte
SHA256 = hashlib.sha256(DATA).hexdigest()
MD5 = hashlib.md5(DATA).hexdigest()
HALF = 400_000


@pytest.fixture(autouse=True)
def _local(monkeypatch: pytest.MonkeyPatch) -> None:
    stay_on_this_machine(monkeypatch)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as server:
        server.files['/w.pth'] = DATA
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / 'pretrained' / 'deep' / 'w.pth'


def fetch(server: FileServer, target: Path, digest: str | None = f'sha256:{SHA256}', **settings: object) -> Received:
    return download(f'{server.address}/w.pth', target, digest, pause=0.0, **settings)


def beside(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []


def fail(server: FileServer, target: Path, kind: type[UserError] = RunFailure, **settings: object) -> UserError:
    with pytest.raises(kind) as caught:
        fetch(server, target, **settings)
    return caught.value


def break_off(server: FileServer, target: Path, size: int = HALF, digest: str | None = f'sha256:{SHA256}') -> None:
    """A download that breaks off after ``size`` bytes."""
    server.cuts = [size] + [0] * (module.ATTEMPTS - 1)
    fail(server, target, digest=digest)
    assert Path(f'{target}.part').read_bytes() == DATA[:size]
    server.requests.clear()
    server.sent = 0


# successful downloads


@pytest.mark.parametrize('digest', [None, f'sha256:{SHA256}', f'sha256:{SHA256[:8]}', f'md5:{MD5}', f'md5:{MD5[:8]}'])
def test_a_whole_file(server, target, digest):
    seen = []
    received = fetch(server, target, digest, progress=lambda done, total: seen.append((done, total)))
    assert received == Received(len(DATA), SHA256, 0)
    assert target.read_bytes() == DATA
    assert beside(target) == ['w.pth']
    assert seen[0] == (0, len(DATA)) and seen[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_length_that_is_not_told(server, target):
    server.tells_length = False
    seen = []
    fetch(server, target, progress=lambda done, total: seen.append(total))
    assert target.read_bytes() == DATA and set(seen) == {None}


def test_an_existing_file_is_replaced_at_the_end_only(server, target):
    target.parent.mkdir(parents=True)
    target.write_bytes(b'old')
    server.statuses = [404]
    fail(server, target)
    assert target.read_bytes() == b'old'
    fetch(server, target)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize('validator', [{'ETag': '"abc"'}, {'Last-Modified': 'Wed, 01 Jan 2020 00:00:00 GMT'}])
def test_a_cut_connection_goes_on_where_it_broke(server, target, validator):
    server.headers = validator
    server.cuts = [100_000, 250_000]
    assert fetch(server, target) == Received(len(DATA), SHA256, 0)
    assert server.requests == [('/w.pth', None), ('/w.pth', 'bytes=100000-'), ('/w.pth', 'bytes=350000-')]
    assert server.sent == len(DATA), 'no byte is sent twice'
    assert target.read_bytes() == DATA and beside(target) == ['w.pth']


def test_the_next_call_goes_on_too(server, target):
    break_off(server, target)
    seen = []
    received = fetch(server, target, f'md5:{MD5}', progress=lambda done, total: seen.append((done, total)))
    assert received == Received(len(DATA), SHA256, HALF)
    assert server.requests == [('/w.pth', f'bytes={HALF}-')] and server.sent == len(DATA) - HALF
    assert seen[0] == (HALF, len(DATA))
    assert target.read_bytes() == DATA and beside(target) == ['w.pth']


def test_an_interrupt_keeps_what_has_arrived(server, target):
    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server, target, progress=stop)
    assert beside(target) == ['w.pth.part', 'w.pth.part.json']
    received = fetch(server, target)
    assert received.resumed > 0 and target.read_bytes() == DATA


def test_all_bytes_were_there_already(server, target):
    """Killed between the last byte and the rename: the server has nothing left to send and answers 416."""
    break_off(server, target)
    Path(f'{target}.part').write_bytes(DATA)
    assert fetch(server, target).resumed == len(DATA)
    assert server.requests == [('/w.pth', f'bytes={len(DATA)}-')] and server.sent == 0
    assert target.read_bytes() == DATA


def test_a_part_longer_than_the_file_is_given_up(server, target):
    break_off(server, target)
    Path(f'{target}.part').write_bytes(DATA + b'more')
    fetch(server, target, None)
    assert [wanted for _, wanted in server.requests] == [f'bytes={len(DATA) + 4}-', None]
    assert target.read_bytes() == DATA


def test_statuses_that_pass(server, target):
    server.statuses = [500, 503, 429]
    fetch(server, target)
    assert target.read_bytes() == DATA and len(server.requests) == 4


def test_a_redirect_keeps_the_range(server, target):
    break_off(server, target)
    server.files = {'/moved': DATA}
    server.statuses = [302]
    server.headers['Location'] = '/moved'
    assert fetch(server, target).resumed == HALF
    assert server.requests == [('/w.pth', f'bytes={HALF}-'), ('/moved', f'bytes={HALF}-')]


# downloads that start again


def test_a_server_without_ranges_starts_again(server, target):
    break_off(server, target)
    server.knows_ranges = False
    assert fetch(server, target) == Received(len(DATA), SHA256, 0)
    assert server.sent == len(DATA) and target.read_bytes() == DATA


@pytest.mark.parametrize('looks', [True, False])
def test_a_file_that_changed_starts_again(server, target, looks):
    """Even if the server ignores If-Range and sends the rest of the new version."""
    break_off(server, target, digest=None)
    new = random.Random(1).randbytes(len(DATA))
    server.files['/w.pth'], server.headers, server.looks_at_if_range = new, {'ETag': '"2"'}, looks
    received = fetch(server, target, None)
    assert received.resumed == 0 and target.read_bytes() == new


@pytest.mark.parametrize('headers', [{}, {'ETag': 'W/"1"'}])
def test_a_version_without_a_name_starts_again(server, target, headers):
    """Without a strong ETag or a date the request cannot name the version whose rest it needs."""
    server.headers = headers
    server.cuts = [HALF]
    fetch(server, target)
    assert [wanted for _, wanted in server.requests] == [None, None]
    assert target.read_bytes() == DATA


def test_another_address_starts_again(server, target):
    break_off(server, target)
    server.files['/other'] = DATA
    download(f'{server.address}/other', target, pause=0.0)
    assert server.requests == [('/other', None)] and target.read_bytes() == DATA


def test_a_damaged_part_is_found_by_the_digest_and_fetched_again(server, target):
    break_off(server, target)
    Path(f'{target}.part').write_bytes(bytes(HALF))
    assert fetch(server, target) == Received(len(DATA), SHA256, 0)
    assert [wanted for _, wanted in server.requests] == [f'bytes={HALF}-', None]
    assert target.read_bytes() == DATA


# failures


def test_cut_for_good(server, target):
    server.cuts = [HALF] + [0] * 10
    error = fail(server, target)
    assert len(server.requests) == module.ATTEMPTS
    assert f'{server.address}/w.pth cannot be fetched' in error.message and f'{HALF:,} bytes are kept' in error.message
    assert 'resumes where it stopped' in error.hint and error.exit_code == 1
    assert beside(target) == ['w.pth.part', 'w.pth.part.json']
    assert Path(f'{target}.part').read_bytes() == DATA[:HALF]


def test_waits_longer_from_attempt_to_attempt(server, target, monkeypatch):
    waits = []
    monkeypatch.setattr(module.time, 'sleep', waits.append)
    server.statuses = [500] * 10
    with pytest.raises(RunFailure, match='status 500'):
        download(f'{server.address}/w.pth', target, pause=10.0)
    assert waits == [10.0, 20.0, 30.0, 30.0] and not beside(target)


@pytest.mark.parametrize('digest', ['sha256:' + '0' * 64, 'sha256:01234567', 'md5:' + '0' * 32])
def test_a_wrong_digest(server, target, digest):
    error = fail(server, target, digest=digest, expected_by='published on some page')
    found = MD5 if digest.startswith('md5') else SHA256
    assert found in error.message and f'{digest} is published on some page' in error.message
    assert beside(target) == ['w.pth.bad'], 'the file is kept aside, and no part is left to resume'
    assert f'{target}.bad' in error.hint and str(target) in error.hint


@pytest.mark.parametrize(('status', 'words'), [(404, 'no such file'), (403, 'denied'), (410, 'gone'), (418, 'status 418')])
def test_a_status_that_stays(server, target, status, words):
    server.statuses = [status] * 10
    error = fail(server, target)
    assert words in error.message and len(server.requests) == 1
    assert f'fetch {server.address}/w.pth on another machine' in error.hint and str(target) in error.hint
    assert not beside(target)


@pytest.mark.parametrize(
    ('body', 'kind'),
    [
        (b'\n <!DOCTYPE html><p>log in', 'text/plain'),
        (b'<html>', 'application/octet-stream'),
        (b'log in', 'text/html; charset=utf-8'),
        (b'version https://git-lfs.github.com/spec/v1\noid', 'text/plain'),
    ],
)
def test_a_page_instead_of_the_file(server, target, body, kind):
    """Reported before the digest is compared; the partial download is kept."""
    break_off(server, target)
    server.files['/w.pth'], server.headers, server.knows_ranges = body, {'Content-Type': kind}, False
    error = fail(server, target)
    assert 'instead of the file' in error.message and 'login' in error.hint
    assert Path(f'{target}.part').read_bytes() == DATA[:HALF] and not target.exists()


def test_an_empty_file(server, target):
    server.files['/w.pth'] = b''
    assert 'empty' in fail(server, target, digest=None).message
    assert not beside(target)


def test_a_compressed_answer_is_not_the_file(server, target):
    server.headers['Content-Encoding'] = 'gzip'
    assert 'gzip' in fail(server, target, digest=None).message


def test_no_space_is_said_before_anything_is_written(server, target, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(10**9, 10**9 - 200_001, 200_001))
    error = fail(server, target)
    assert '0.7 MB more' in error.message and '0.2 MB left' in error.message and '0.5 MB are missing' in error.message
    assert '--root' in error.hint and not beside(target)


def test_a_part_needs_only_the_rest_of_the_space(server, target, monkeypatch):
    break_off(server, target)
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(10**9, 0, len(DATA) - HALF))
    fetch(server, target)
    assert target.read_bytes() == DATA


def test_a_disk_that_fills_up_keeps_the_part(server, target, monkeypatch):
    write = os.write
    written = 0

    def fill_up(file, data):
        nonlocal written
        written += len(data)
        if written > 500_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    with monkeypatch.context() as patched:
        patched.setattr(os, 'write', fill_up)
        error = fail(server, target)
    assert 'disk full' in error.message and 'kept' in error.message
    assert 'resumes where it stopped' in error.hint and '--work-dir' not in error.hint
    size = Path(f'{target}.part').stat().st_size
    assert 0 < size < 500_000
    server.requests.clear()
    assert fetch(server, target).resumed == size
    assert server.requests == [('/w.pth', f'bytes={size}-')] and target.read_bytes() == DATA


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    error = fail(server, tmp_path / 'file' / 'deep' / 'w.pth', UserError)
    assert error.exit_code == 2 and '--root' in error.hint


def test_no_network(target):
    url = f'http://127.0.0.1:{closed_port()}/w.pth'
    with pytest.raises(RunFailure) as caught:
        download(url, target, pause=0.0, public_url='https://example.org/w.pth')
    assert url in caught.value.message and 'no connection' in caught.value.message and '(2 attempts)' in caught.value.message
    assert 'fetch https://example.org/w.pth on another machine' in caught.value.hint
    assert str(target.absolute()) in caught.value.hint and not beside(target)


def test_no_network_leaves_an_older_part_alone(server, target):
    break_off(server, target)
    with pytest.raises(RunFailure):
        download(f'http://127.0.0.1:{closed_port()}/w.pth', target, pause=0.0)
    assert fetch(server, target).resumed == HALF


@pytest.mark.parametrize('place', ['ftp://127.0.0.1/x', 'file:///etc/passwd'])
def test_a_redirect_to_another_scheme_is_not_followed(server, target, place):
    server.statuses = [302]
    server.headers['Location'] = place
    fail(server, target)
    assert not beside(target)


def test_a_redirect_from_https_to_http_is_not_followed():
    request = module.urllib.request.Request('https://example.org/w.pth')
    with pytest.raises(RunFailure, match='not safe'):
        module._Redirects().redirect_request(request, None, 302, 'Found', {}, 'http://example.org/w.pth')


@pytest.mark.parametrize(
    'url', ['ftp://h/x', 'file:///x', '/x', 'https:///x', 'https://h/a b', 'https://h/a\nb', 'https://u:p@h/x']
)
def test_addresses_that_are_refused(url, target):
    with pytest.raises(UserError) as caught:
        download(url, target)
    assert caught.value.exit_code == 2 and 'u:p' not in str(caught.value)


@pytest.mark.parametrize(
    'digest', ['sha512:01234567', 'sha1:0123', 'sha256:0123', 'md5:' + '0' * 33, 'sha256:XYZ01234', '0123456789']
)
def test_digests_that_are_refused(digest, target):
    with pytest.raises(UserError, match='not a digest'):
        download('https://example.org/x', target, digest)


def test_two_at_a_time(server, target):
    target.parent.mkdir(parents=True)
    with PartialDownload(target, 'sha256'):
        assert 'another process' in fail(server, target).message
    fetch(server, target)


# allowed addresses


@pytest.mark.parametrize('path', ['../w.pth', 'a/../../w.pth', 'leads/out/w.pth', '..', '.'])
def test_nothing_is_written_outside_of_the_folder(tmp_path, server, path):
    root = tmp_path / 'pretrained'
    (root / 'leads').mkdir(parents=True)
    (root / 'leads' / 'out').symlink_to(tmp_path)
    with pytest.raises(UserError, match='does not lie below'):
        fetch(server, root / path, root=root)
    assert not server.requests and [path.name for path in tmp_path.iterdir()] == ['pretrained']


def test_the_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'pretrained').symlink_to(tmp_path / 'disk')
    check_inside(tmp_path / 'pretrained' / 'a' / 'w.pth', tmp_path / 'pretrained')


def test_another_host_takes_the_place_of_the_first():
    url = 'https://example.org/files/?p=%2Fa%2Fb.ckpt&dl=1'
    assert on_another_host(url, 'http://near:8000') == 'http://near:8000/files/?p=%2Fa%2Fb.ckpt&dl=1'
    assert on_another_host(url, 'https://near/copy/') == 'https://near/copy/files/?p=%2Fa%2Fb.ckpt&dl=1'
    for bad in ('near', 'ftp://near', 'https://near/?a=1', 'https://u:p@near'):
        with pytest.raises(UserError):
            on_another_host(url, bad)


def test_the_note_names_the_version(server, target):
    break_off(server, target)
    assert json.loads(Path(f'{target}.part.json').read_text()) == {
        'url': f'{server.address}/w.pth',
        'ETag': '"1"',
        'Last-Modified': None,
        'size': len(DATA),
    }
