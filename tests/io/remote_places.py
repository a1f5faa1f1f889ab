"""A bucket and a web server on this machine, behind a proxy that is slow, cuts, or fails as it is told."""

from __future__ import annotations

import hashlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

import pytest

from tests.io.serving import serving, stay_on_this_machine
from vq.io import s3, stores

Fault = tuple[str, float]  # 'status' 500; 'cut' after so many bytes of the body; 'slow', seconds before the answer


class Proxy:
    """Passes requests on. Each request whose path has ``matching`` in it takes the first of ``faults``."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.matching = ''
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.address = ''

    def answer(self, handler: BaseHTTPRequestHandler, target: str) -> None:
        self.requests.append((handler.command, handler.path, handler.headers.get('Range')))
        kind, amount = self.faults.pop(0) if self.faults and self.matching in handler.path else ('', 0.0)
        handler.close_connection = True
        if kind == 'slow':
            time.sleep(amount)
        if kind == 'status':
            handler.send_response(int(amount))
            handler.send_header('Connection', 'close')  # else the client would ask again on a connection that ends just now
            handler.send_header('Content-Length', '0')
            handler.end_headers()
            return
        body = handler.rfile.read(int(handler.headers.get('Content-Length', 0)))
        connection = http.client.HTTPConnection(target, timeout=10)
        connection.request(handler.command, handler.path, body, dict(handler.headers.items()))
        response = connection.getresponse()
        data = response.read()
        connection.close()
        try:
            handler.send_response(response.status)
            handler.send_header('Connection', 'close')
            for name, value in response.getheaders():
                if name.lower() not in ('transfer-encoding', 'connection', 'server', 'date'):
                    handler.send_header(name, value)
            if response.getheader('Content-Length') is None:
                handler.send_header('Content-Length', str(len(data)))
            handler.end_headers()
            handler.wfile.write(data[: int(amount)] if kind == 'cut' else data)
        except OSError:
            pass  # the reader had waited long enough


@contextmanager
def proxied(target: str) -> Iterator[Proxy]:
    proxy = Proxy()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_GET(self) -> None:
            proxy.answer(self, target)

        def do_HEAD(self) -> None:
            proxy.answer(self, target)

        def log_message(self, format: str, *args: Any) -> None:
            """No log: tests report failures themselves."""

    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        proxy.address = f'http://127.0.0.1:{server.server_port}'
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


class Remote:
    """Files at ``url(name)``, which the test puts there directly, and the code under test reads through ``proxy``."""

    def __init__(self, scheme: str, root: str, proxy: Proxy, put: Callable[[str, bytes], None]) -> None:
        self.scheme, self.root, self.proxy, self._put = scheme, root, proxy, put
        self.names: dict[str, bytes] = {}

    def url(self, name: str = '') -> str:
        return f'{self.root}/{name}' if name else self.root

    def put(self, name: str, data: bytes) -> None:
        self._put(name, data)
        self.names[name] = data

    def list_files(self, folder: str = '') -> None:
        """The index that a web server needs."""
        start = f'{folder}/' if folder else ''
        if self.scheme == 'http':
            names = [name.removeprefix(start) for name in self.names if name.startswith(start)]
            self._put(f'{start}index.txt', ''.join(f'{name}\n' for name in names).encode())


@pytest.fixture(scope='session')
def bucket_server() -> Iterator[str]:
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f'{host}:{port}'
    server.stop()


@pytest.fixture
def network(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, an own cache, keys that are no secrets."""
    stay_on_this_machine(monkeypatch)
    monkeypatch.setattr(stores, 'PAUSE', 0.0)
    monkeypatch.setenv('VQ_CACHE', str(tmp_path / 'cache'))
    for name, value in (('ACCESS_KEY_ID', 'test'), ('SECRET_ACCESS_KEY', 'test'), ('DEFAULT_REGION', 'us-east-1')):
        monkeypatch.setenv(f'AWS_{name}', value)
    monkeypatch.setenv('AWS_CONFIG_FILE', str(tmp_path / 'none'))
    monkeypatch.setenv('AWS_SHARED_CREDENTIALS_FILE', str(tmp_path / 'none'))


@pytest.fixture(params=['http', pytest.param('s3', marks=pytest.mark.slow)])
def there(request: pytest.FixtureRequest, network: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    with ExitStack() as stack:
        if request.param == 'http':
            server = stack.enter_context(serving())
            server.looks_at_if_range = False
            proxy = stack.enter_context(proxied(server.address.removeprefix('http://')))

            def put_file(name: str, data: bytes) -> None:
                server.files[quote(f'/data/{name}')] = data

            # one ETag per content, as web servers have
            server.etag = lambda data: f'"{hashlib.md5(data).hexdigest()[:8]}"'
            yield Remote('http', f'{proxy.address}/data', proxy, put_file)
            return
        bucket_server = request.getfixturevalue('bucket_server')  # which takes seconds to import
        proxy = stack.enter_context(proxied(bucket_server))
        s3.client_of.cache_clear()
        monkeypatch.setenv('AWS_ENDPOINT_URL', f'http://{bucket_server}')
        direct = s3.client_of(0, 5.0)
        bucket = f'bucket-{id(proxy)}'
        direct.create_bucket(Bucket=bucket)
        monkeypatch.setenv('AWS_ENDPOINT_URL', proxy.address)

        def put_object(name: str, data: bytes) -> None:
            direct.put_object(Bucket=bucket, Key=f'data/{name}', Body=data)

        yield Remote('s3', f's3://{bucket}/data', proxy, put_object)
        s3.client_of.cache_clear()
