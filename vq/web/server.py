"""The server of the page: loopback only, a random token in its address, and limits for all that arrives. Works without torch.

Every request is checked for its Host header, so that no name of another site can lead here, and for the token, which is the
first part of the path. Nothing on the page is fetched from elsewhere, and its policy forbids it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

from vq.core.errors import UserError
from vq.core.reading import parse_json
from vq.web import runs, uploads
from vq.web.jobs import ENDED, Job, Queue
from vq.web.places import fingerprint, picture_of, place_of

HOST = '127.0.0.1'
LARGEST_JSON = 1_000_000  # bytes of a request
LARGEST_PICTURE = 40_000_000  # bytes of a file that is shown
DRAINED = 64_000_000  # bytes of a body that is refused that are read, so that the answer arrives
TYPES = {'.html': 'text/html; charset=utf-8', '.css': 'text/css; charset=utf-8', '.js': 'text/javascript; charset=utf-8'}
KINDS = ('draw', 'reconstruct', 'compare')
IMAGES = ('image', 'half')  # what a job names an uploaded image by
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    'Content-Security-Policy': POLICY,
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cache-Control': 'no-store',
}
WRONG_ADDRESS = 'This address has no token, or that of an earlier start. Open the address that vq web printed in its terminal.'


class Site(ThreadingHTTPServer):
    """One page about one folder of runs."""

    daemon_threads = True

    def __init__(self, root: Path, device: str = 'auto', port: int = 0, queue: Queue | None = None) -> None:
        self.queue = queue or Queue({'root': str(root), 'device': device})  # first: it is closed if the port cannot be taken
        super().__init__((HOST, port), Handler)
        self.root, self.token = root, secrets.token_urlsafe(24)
        self.uploads = uploads.Uploads()
        self.files = static_files()
        self._survey: Job | None = None
        self._surveyed: Mapping[str, float] | None = None
        self._known: Mapping[str, Any] = {'runs': [], 'device': ''}
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        return f'http://{HOST}:{self.server_address[1]}/{self.token}/'

    @property
    def hosts(self) -> tuple[str, str]:
        """What a Host header can be."""
        port = self.server_address[1]
        return f'{HOST}:{port}', f'localhost:{port}'

    def survey(self) -> dict[str, Any]:
        """What the runs can do; if there are other runs or checkpoints than before, the worker looks at them."""
        with self._lock:
            now = fingerprint(self.root)
            if self._survey is not None and self._survey.state in ENDED:
                if self._survey.result is not None:
                    self._known = self._survey.result
                elif self._survey.state == 'failed':
                    self._known = {**self._known, 'error': self._survey.error, 'hint': self._survey.hint}
                self._survey = None
            if now != self._surveyed and self._survey is None:
                self._surveyed, self._survey = now, self.queue.add('survey', {}, first=True)
            return {**self._known, 'looking': self._survey is not None}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes a connection is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        self.queue.close()
        super().server_close()


def static_files() -> dict[str, tuple[str, bytes]]:
    """Name -> (type, content) of the files of the page, read once."""
    folder = resources.files('vq.web').joinpath('static')
    found = {
        file.name: (TYPES[Path(file.name).suffix], file.read_bytes())
        for file in folder.iterdir()
        if Path(file.name).suffix in TYPES
    }
    base = resources.files('vq.io.pages').joinpath('page.css').read_bytes()
    return {**found, 'base.css': (TYPES['.css'], base)}


class Refused(Exception):
    """An answer that is not what was asked for."""

    def __init__(self, status: HTTPStatus, error: UserError) -> None:
        super().__init__(status, error)
        self.status, self.error = status, error


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Site
    protocol_version = 'HTTP/1.1'
    server_version, sys_version = 'vq', ''
    timeout = 60  # seconds without a byte

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is for errors."""

    def _answer(self, act: Callable[[str, dict[str, str]], None]) -> None:
        self._body_read = False
        try:
            act(*self._checked())
        except Refused as refused:
            self._refuse(refused.status, refused.error)
        except UserError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, error)

    def _checked(self) -> tuple[str, dict[str, str]]:
        """(path behind the token, arguments). An error unless Host, Origin and token are right."""
        hosts = self.headers.get_all('Host') or []
        if len(hosts) != 1 or hosts[0] not in self.server.hosts:
            raise Refused(HTTPStatus.FORBIDDEN, UserError('the Host header is of another site', WRONG_ADDRESS))
        origin = self.headers.get('Origin')
        if origin is not None and origin not in [f'http://{host}' for host in self.server.hosts]:
            raise Refused(HTTPStatus.FORBIDDEN, UserError('the request is from another site', WRONG_ADDRESS))
        url = urllib.parse.urlsplit(self.path)
        token, _, path = url.path.removeprefix('/').partition('/')
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, UserError('the token is wrong', WRONG_ADDRESS))
        try:
            return path, dict(urllib.parse.parse_qsl(url.query, max_num_fields=20))
        except ValueError as error:
            raise UserError(f'the address has too many arguments: {error}', 'Load the page again.') from error

    def _get(self, path: str, given: dict[str, str]) -> None:
        site = self.server
        if path == '' and not urllib.parse.urlsplit(self.path).path.endswith('/'):  # files of the page are beside it
            self._send(HTTPStatus.MOVED_PERMANENTLY, TYPES['.html'], b'', {'Location': f'/{site.token}/'})
        elif (name := path or 'page.html') in site.files:
            self._send(HTTPStatus.OK, *site.files[name])
        elif path == 'api/state':
            self._json({'root': str(site.root), 'limits': {'bytes': uploads.LARGEST, 'side': uploads.SIDE}, **site.survey()})
        elif path == 'api/runs':
            self._json({'runs': runs.listed(site.root)})
        elif path == 'api/run':
            self._json(runs.detail(given.get('run'), site.root))
        elif path == 'api/picture':
            file = picture_of(given.get('run'), given.get('file'), site.root)
            if file.stat().st_size > LARGEST_PICTURE:
                raise UserError(f'{file.name} is too large to be shown', f'It is {file}.')
            self._send(HTTPStatus.OK, 'image/png', file.read_bytes())
        elif path.startswith('api/jobs/'):
            self._json(self._told(site.queue.job(number_in(path)), given.get('seen', '0')))
        else:
            raise Refused(HTTPStatus.NOT_FOUND, UserError(f"there is no '{path:.80}' here", 'Load the page again.'))

    def _post(self, path: str, given: dict[str, str]) -> None:
        site = self.server
        if path == 'api/images':
            name, width, height = site.uploads.add(self._body(uploads.LARGEST, uploads.too_large))
            self._json({'image': name, 'width': width, 'height': height})
        elif path == 'api/jobs':
            self._json({'job': self._add_job().number})
        elif path.startswith('api/jobs/') and path.endswith('/cancel'):
            self._body(LARGEST_JSON, too_long)
            site.queue.cancel(number_in(path.removesuffix('/cancel')))
            self._json({})
        else:
            raise Refused(HTTPStatus.NOT_FOUND, UserError(f"there is no '{path:.80}' here", 'Load the page again.'))

    def _add_job(self) -> Job:
        if self.headers.get_content_type() != 'application/json':
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, UserError('a job is asked for in JSON', 'Load the page again.'))
        try:
            content = parse_json(self._body(LARGEST_JSON, too_long), 20)
        except ValueError as error:
            raise UserError(f'the request is no JSON: {error}', 'Load the page again.') from error
        kind, asked = (content.get('kind'), content.get('asked')) if isinstance(content, dict) else (None, None)
        if kind not in KINDS or not isinstance(asked, dict):
            raise UserError(f'there is no job of the kind {kind!r:.40}', 'Load the page again.')
        for name in asked['runs'] if isinstance(asked.get('runs'), list) else [asked.get('run')]:
            place_of(name, self.server.root)
        for part in IMAGES:
            if asked.get(part) is not None:
                asked[part] = base64.b64encode(self.server.uploads.data(asked[part])).decode()
        return self.server.queue.add(kind, asked)

    def _told(self, job: Job, seen: str) -> dict[str, Any]:
        """The state of a job; its preview if it is newer than the one that the page has seen."""
        told = {name: getattr(job, name) for name in ('state', 'share', 'note', 'previews', 'error', 'hint', 'result')}
        if job.previews and str(job.previews) != seen:
            told['preview'] = job.preview
        return {**told, 'ahead': self.server.queue.ahead(job)}

    def _body(self, largest: int, too_much: Callable[[int], UserError]) -> bytes:
        length = self.headers.get('Content-Length') or ''
        if not length.isdecimal() or len(length) > 18:
            self.close_connection = True
            raise Refused(HTTPStatus.LENGTH_REQUIRED, UserError('the request does not say its length', 'Load the page again.'))
        self._body_read = True
        if int(length) > largest:
            self._drain(int(length))
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, too_much(int(length)))
        return self.rfile.read(int(length))

    def _drain(self, length: int) -> None:
        """Read what was sent although it is refused: a browser that is cut off while it sends shows no answer."""
        self.close_connection = True
        left, until = min(length, DRAINED), time.monotonic() + 10
        while left > 0 and time.monotonic() < until and (part := self.rfile.read(min(left, 1 << 16))):
            left -= len(part)

    def _refuse(self, status: HTTPStatus, error: UserError) -> None:
        if self.command == 'POST' and not self._body_read:
            length = self.headers.get('Content-Length') or '0'
            self._drain(int(length) if length.isdecimal() and len(length) < 18 else 0)
        if 'text/html' in (self.headers.get('Accept') or ''):
            said = f'<!doctype html><title>vq</title><p>{escape(error.message)}.</p><p>{escape(error.hint)}</p>'
            self._send(status, TYPES['.html'], said.encode())
        else:
            self._json({'error': error.message, 'hint': error.hint}, status)

    def _json(self, content: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, 'application/json', json.dumps(content).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes, more: Mapping[str, str] | None = None) -> None:
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in {**HEADERS, 'Content-Type': kind, **(more or {})}.items():
                self.send_header(name, value)
            self.send_header('Content-Length', str(len(content)))
            if self.close_connection:
                self.send_header('Connection', 'close')
            self.end_headers()
            self.wfile.write(content)


def number_in(path: str) -> int:
    word = path.rpartition('/')[2]
    if not word.isdecimal() or len(word) > 12:
        raise UserError(f"there is no job '{word:.40}'", 'Load the page again.')
    return int(word)


def too_long(size: int) -> UserError:
    return UserError(f'the request has {size:,} bytes, and {LARGEST_JSON:,} are taken', 'Draw a smaller layout.')
