"""Downloads end: bounded by the published size, by a deadline for progress, and never written through a link."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.io.serving import FileServer, serving, stay_on_this_machine
from vq.core.errors import RunFailure, UserError
from vq.io import download as module
from vq.io.download import download


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_on_this_machine(monkeypatch)
    monkeypatch.chdir(tmp_path)


@contextmanager
def answering(start: bytes, piece: bytes, pause: float) -> Iterator[str]:
    """A server that sends ``start``, then ``piece`` again and again, ``pause`` seconds apart."""
    over = threading.Event()
    with socket.create_server(('127.0.0.1', 0)) as listening:
        listening.settimeout(0.05)

        def serve() -> None:
            while not over.is_set():
                try:
                    connection = listening.accept()[0]
                except TimeoutError:
                    continue
                with connection:
                    try:
                        connection.recv(65536)
                        connection.sendall(start)
                        while not over.wait(pause):
                            connection.sendall(piece)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f'http://127.0.0.1:{listening.getsockname()[1]}/x'
        finally:
            over.set()
            thread.join()


def fail(url: str, kind: type[UserError] = RunFailure, **settings: object) -> UserError:
    with pytest.raises(kind) as caught:
        download(url, Path('x'), pause=0.0, **settings)
    assert not Path('x').exists()
    return caught.value


@pytest.mark.parametrize('start', [b'HTTP/1.1 200 OK\r\n\r\n', b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'])
def test_an_endless_download_is_bounded_by_the_published_size(start: bytes) -> None:
    piece = b'10000\r\n' + bytes(0x10000) + b'\r\n' if b'chunked' in start else bytes(0x10000)
    with answering(start, piece, 0.0) as url:
        error = fail(url, size=1_000_000)
    assert '1,000,000 are published' in error.message and 'another machine' in error.hint
    assert not os.listdir()


def test_without_a_published_size_there_is_a_bound_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, 'LARGEST', 500_000)
    with answering(b'HTTP/1.1 200 OK\r\n\r\n', bytes(65536), 0.0) as url:
        assert 'at most 500,000 are fetched' in fail(url).message


def test_a_length_above_the_published_size_is_refused_before_a_byte_is_kept() -> None:
    with answering(b'HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n', b'x', 0.01) as url:
        assert '1,000,000 are published' in fail(url, size=1_000_000).message
    assert not os.listdir()


@pytest.mark.slow
@pytest.mark.parametrize('start', [b'HTTP/1.1 200 OK\r\nContent-Length: 99999\r\nETag: "1"\r\n\r\n', b''])
def test_a_byte_now_and_then_is_no_progress(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first server drips its file, the second the header of its answer."""
    monkeypatch.setattr(module, 'PATIENCE', 0.15)
    with answering(start, b'x' if start else b'H', 0.02) as url:
        message = fail(url).message
    assert '5 attempts' in message and ('bytes came in' in message if start else 'connection broke' in message)


@pytest.mark.parametrize('name', ['Content-Length', 'Retry-After'])
def test_5000_digit_lengths_in_headers(name: str) -> None:
    with serving() as server:
        server.files['/x'] = b'abc'
        server.tells_length = False
        server.headers[name] = '9' * 5000
        server.statuses = [503] if name == 'Retry-After' else []
        server.knows_ranges = False
        assert download(f'{server.address}/x', Path('x'), pause=0.0).size == 3


def test_a_5000_digit_range() -> None:
    start = b'HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-1/' + b'9' * 5000 + b'\r\n\r\n'
    with answering(start, bytes(65536), 0.0) as url:
        assert 'another range' in fail(url).message


@pytest.mark.parametrize('kind', ['link', 'dangling', 'pipe', 'folder'])
def test_nothing_is_written_through_what_lies_at_the_part(kind: str) -> None:
    Path('precious').write_text('precious')
    if kind == 'pipe':
        os.mkfifo('x.part')
    elif kind == 'folder':
        os.mkdir('x.part')
    else:
        os.symlink('precious' if kind == 'link' else 'created', 'x.part')
    server: FileServer
    with serving() as server:
        server.files['/x'] = b'abc'
        error = fail(f'{server.address}/x', UserError)
        assert not server.requests
    assert 'x.part is a link, or no file' in error.message and error.exit_code == 2
    assert Path('precious').read_text() == 'precious' and not Path('created').exists()


def test_a_page_in_small_pieces_is_still_a_page() -> None:
    page = b'<html>' + b'x' * 3000
    start = b'HTTP/1.1 200 OK\r\nContent-Length: 3006\r\n\r\n<'
    with answering(start, page[1:], 0.02) as url:
        assert 'web page' in fail(url).message
