"""A local file server with the failures of real ones."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class FileServer:
    """``files`` by path. Each request takes the first of ``statuses`` and of ``cuts`` (body bytes before it disconnects)."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, str] = {'ETag': '"1"'}
        self.knows_ranges = True
        self.looks_at_if_range = True
        self.tells_length = True
        self.statuses: list[int] = []
        self.cuts: list[int] = []
        self.requests: list[tuple[str, str | None]] = []  # path, Range
        self.sent = 0  # bytes of bodies
        self.address = ''
        self.etag: Callable[[bytes], str] | None = None  # of a content; otherwise all have that of ``headers``

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get('Range')
        self.requests.append((handler.path, wanted))
        status = self.statuses.pop(0) if self.statuses else 200
        if status in (301, 302, 307):
            handler.send_response(status)
            handler.send_header('Location', self.headers['Location'])
            handler.end_headers()
            return
        data = self.files.get(handler.path)
        if status != 200 or data is None:
            handler.send_error(status if status != 200 else 404)
            return
        version = self.headers.get('ETag') or self.headers.get('Last-Modified')
        if not self.knows_ranges or (self.looks_at_if_range and handler.headers.get('If-Range') != version):
            wanted = None
        first, last = re.fullmatch(r'bytes=(\d+)-(\d*)', wanted or 'bytes=0-').groups()
        start, stop = int(first), min(int(last) + 1, len(data)) if last else len(data)
        if wanted and start >= len(data):
            handler.send_response(416)
            handler.send_header('Content-Range', f'bytes */{len(data)}')
            handler.end_headers()
            return
        handler.send_response(206 if wanted else 200)
        if wanted:
            handler.send_header('Content-Range', f'bytes {start}-{stop - 1}/{len(data)}')
        if self.tells_length:
            handler.send_header('Content-Length', str(stop - start))
        headers = self.headers if self.etag is None else {**self.headers, 'ETag': self.etag(data)}
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        body = data[start:stop] if handler.command == 'GET' else b''
        if self.cuts:
            body = body[: self.cuts.pop(0)]
        handler.wfile.write(body)
        self.sent += len(body)


@contextmanager
def serving() -> Iterator[FileServer]:
    server = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def do_HEAD(self) -> None:
            server.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            """No log: tests report failures themselves."""

    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as http:
        server.address = f'http://127.0.0.1:{http.server_port}'
        thread = threading.Thread(target=http.serve_forever, kwargs={'poll_interval': 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def closed_port() -> int:
    """A port of this machine without a server."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])


def stay_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to another machine fails the test."""
    connect = socket.create_connection

    def local(address: tuple[str, int], *args: Any, **settings: Any) -> socket.socket:
        assert address[0] == '127.0.0.1', f'a test connects to {address}'
        return connect(address, *args, **settings)

    monkeypatch.setattr(socket, 'create_connection', local)
    for name in ('http_proxy', 'https_proxy', 'all_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
