"""Download of one file: resumable, checked against a digest, and renamed into place when it is complete.

Received bytes are kept in ``NAME.part`` next to the target. The next call requests the rest, if the server still has the
same version. A file with a wrong digest is kept as ``NAME.bad`` for inspection and is never used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import itertools
import re
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from vq import __version__
from vq.core.errors import RunFailure, UserError
from vq.io.partial_download import PartialDownload
from vq.io.writer import disk_errors

Progress = Callable[[int, int | None], None]  # bytes received, bytes in total if the server says

CHUNK = 1 << 18  # bytes of a read, at most
PIECE = 1 << 14  # bytes that are collected before they are written; the first must show whether it is a web page
ATTEMPTS = 5  # if connections break
UNREACHABLE = 2  # attempts if no connection was made at all: most likely there is no network
LARGEST = 2**36  # bytes of a file whose size is not published
PATIENCE = 60.0  # seconds after which a connection that sends fewer than ``SLOWEST`` bytes per second counts as broken
SLOWEST = 1000
SILENCE = 30.0  # seconds without a byte after which a connection counts as broken
LONGEST_PAUSE = 30.0

_SCHEMES = ('http', 'https')
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that are tried again
_PAGE = (b'<!doctype html', b'<html', b'version https://git-lfs')
_NUMBER = r'[0-9]{1,18}'  # a length in a header; a number of thousands of digits is none
_LENGTHS = {'sha256': 64, 'sha1': 40, 'md5': 32}
_DISK_HINT = 'Free some space there and run this again: it resumes where it stopped. Or choose another folder with --root.'


@dataclasses.dataclass(frozen=True)
class Digest:
    """The expected digest of a file: all hexadecimal digits, or the first ones."""

    algorithm: str
    digits: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        algorithm, _, digits = text.partition(':')
        length = _LENGTHS.get(algorithm, 0)
        if not re.fullmatch('[0-9a-f]{8,}', digits) or len(digits) > length:
            raise UserError(
                f"'{text}' is not a digest", 'Give sha256:DIGITS, sha1:DIGITS or md5:DIGITS, at least the first 8 digits.'
            )
        return cls(algorithm, digits)

    def accepts(self, hexadecimal: str) -> bool:
        return hexadecimal.startswith(self.digits)

    def __str__(self) -> str:
        return f'{self.algorithm}:{self.digits}'


@dataclasses.dataclass(frozen=True)
class Received:
    """A file that has arrived."""

    size: int
    sha256: str
    resumed: int  # bytes that an earlier call had received


class _Again(Exception):
    """A failed attempt that is tried again, up to ``most`` attempts. ``pause``: seconds that the server asks to wait."""

    def __init__(self, reason: str, most: int = ATTEMPTS, pause: float | None = None) -> None:
        super().__init__(reason)
        self.most, self.pause = most, pause


def download(
    url: str,
    target: Path,
    digest: str | None = None,
    *,
    root: Path | None = None,
    progress: Progress | None = None,
    pause: float = 1.0,
    expected_by: str = 'expected',
    public_url: str | None = None,
    size: int | None = None,
) -> Received:
    """Fetch ``url`` to ``target``, which must lie below ``root`` if that is given.

    ``size`` is the published number of bytes: no more are received, and without it no more than ``LARGEST``.

    ``pause`` seconds pass before the second attempt, and twice as many before each further one. Messages name the source
    of the digest by ``expected_by``. If ``url`` is a mirror, they recommend the original address, ``public_url``.
    """
    check_address(url)
    if root is not None:
        check_inside(target, root)
    wanted = Digest.parse(digest) if digest else None
    elsewhere = f'fetch {public_url or url} on another machine, put it at {target.absolute()}, and run this again'
    with on_disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with PartialDownload(target, wanted.algorithm if wanted else 'sha256') as part:
            resumed = _gather(url, part, progress, pause, elsewhere, size)
            if wanted and not wanted.accepts(part.hexdigest(wanted.algorithm)) and resumed:
                part.restart()  # the bytes of the earlier call may be the bad ones
                resumed = _gather(url, part, progress, pause, elsewhere, size)
            found = part.hexdigest(wanted.algorithm) if wanted else ''
            if wanted and not wanted.accepts(found):
                bad = part.set_aside()
                raise RunFailure(
                    f'the file from {url} has the digest {wanted.algorithm}:{found}, and {wanted} is {expected_by}; '
                    f'it is kept as {bad} and not used',
                    f'It was damaged or replaced on its way, or its publisher changed it: delete {bad} and try again, or '
                    f'{elsewhere}.',
                )
            part.commit()
            return Received(part.size, part.hexdigest('sha256'), resumed)


def check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname or re.search(r'[\s\x00-\x1f\x7f]', url):
        raise UserError(f"'{url}' is not the address of a file", 'Give an address that begins with https:// or http://.')
    if '@' in parts.netloc:
        raise UserError('an address must not contain a user name or a password', 'Leave out the part before the @.')


def check_inside(target: Path, root: Path) -> None:
    """Refuse a target outside ``root``, also where ``..`` or links lead outside."""
    place = target.parent.resolve() / target.name
    if target.name == '..' or root.resolve() not in place.parents:
        raise UserError(
            f'{target} does not lie below {root.resolve()}, and nothing is written outside of it',
            'Remove the link or the .. that leads out, or choose the folder itself with --root.',
        )


def on_another_host(url: str, base: str) -> str:
    """The path and query of ``url`` below ``base``, the address of a mirror."""
    check_address(base)
    host, file = urlsplit(base), urlsplit(url)
    if host.query or host.fragment:
        raise UserError(f"'{base}' ends with a query or a fragment", 'Give https://HOST or https://HOST/FOLDER.')
    return urlunsplit((host.scheme, host.netloc, host.path.rstrip('/') + file.path, file.query, ''))


@contextlib.contextmanager
def on_disk(target: Path) -> Iterator[None]:
    """``disk_errors`` with advice for downloads."""
    try:
        with disk_errors(target, kept='what has arrived is kept'):
            yield
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise type(error)(error.message, _DISK_HINT) from error.__cause__
    except OSError as error:
        raise UserError(f'{target} cannot be written: {error.strerror} ({error.filename})', _DISK_HINT) from error


# attempts


def _gather(url: str, part: PartialDownload, progress: Progress | None, pause: float, elsewhere: str, size: int | None) -> int:
    """Make attempts until the file is complete. Returns how many of its bytes an earlier call had received."""
    before, tries, answered = part.resumable(url), 0, False
    while True:
        tries += 1
        try:
            kept = _attempt(url, part, progress, elsewhere, size)
            return min(before, kept)
        except _Again as trouble:
            answered = answered or trouble.most == ATTEMPTS  # a network that has just answered may come back
            if tries >= (ATTEMPTS if answered else trouble.most):
                left = f'; {part.size:,} bytes are kept in {part.path}' if part.size else ''
                go_on = 'Run this again, it resumes where it stopped; or' if part.size else 'Check the network; or'
                raise RunFailure(
                    f'{url} cannot be fetched: {trouble} ({tries} attempts){left}', f'{go_on} {elsewhere}.'
                ) from trouble
            asked = pause * 2 ** (tries - 1) if trouble.pause is None else trouble.pause
            time.sleep(min(asked, LONGEST_PAUSE))


def _attempt(url: str, part: PartialDownload, progress: Progress | None, elsewhere: str, size: int | None) -> int:
    """One request for the missing bytes. Returns how many bytes of earlier requests were kept."""
    kept = part.resumable(url)
    try:
        response = _open(url, part.conditions() if kept else {}, elsewhere)
    except urllib.error.HTTPError as error:  # 416: the file has no bytes after those received
        total = re.fullmatch(rf'bytes \*/({_NUMBER})', error.headers.get('Content-Range', ''))
        error.close()
        if total and int(total[1]) == kept:
            part.rehash()
            return kept
        part.restart()
        raise _Again('the server has no such range of the file', pause=0.0) from None
    with response:
        length = response.headers.get('Content-Length', '')
        rest = kept if response.status == 206 else 0
        _check_length(url, rest + (int(length) if re.fullmatch(_NUMBER, length) else 0), size, elsewhere)
        chunks = _chunks(response)
        first = next(chunks, b'')
        total_size = _begin(url, response, first, part, kept, elsewhere)
        _check_room(part, total_size)
        if progress:
            progress(part.size, total_size)
        for chunk in itertools.chain([first], chunks):
            try:
                _check_length(url, part.size + len(chunk), size, elsewhere)
            except RunFailure:
                part.restart()  # what has arrived is not the file
                raise
            part.write(chunk)
            if progress:
                progress(part.size, total_size)
    if total_size is not None and part.size != total_size:
        raise _Again(f'the connection broke after {part.size:,} of {total_size:,} bytes')
    if part.size == 0:
        raise RunFailure(f'{url} sends an empty file', f'Instead, {elsewhere}.')
    return min(kept, part.begun)


def _begin(
    url: str, response: http.client.HTTPResponse, first: bytes, part: PartialDownload, kept: int, elsewhere: str
) -> int | None:
    """Prepare the part file for the bytes of this response. Returns the size of the whole file, if the server says.

    Bytes of earlier requests are discarded only if the response is a file, never for the login page of a network.
    """
    headers = response.headers
    if response.status not in (200, 206):
        raise RunFailure(f'{url}: status {response.status} {response.reason}, without a file', f'Instead, {elsewhere}.')
    if headers.get('Content-Encoding', 'identity') not in ('identity', ''):
        raise RunFailure(f'{url} is sent with Content-Encoding {headers["Content-Encoding"]}', f'Instead, {elsewhere}.')
    if response.status == 206:
        place = re.fullmatch(rf'bytes ({_NUMBER})-{_NUMBER}/({_NUMBER}|\*)', headers.get('Content-Range', ''))
        if place is None or int(place[1]) != kept or part.contradicts(headers):
            part.restart()
            raise _Again('the server sends another range, or one of another version of the file', pause=0.0)
        if kept:
            part.rehash()
        else:
            part.restart()
        return None if place[2] == '*' else int(place[2])
    if headers.get_content_type() == 'text/html' or first[:512].lstrip().lower().startswith(_PAGE):
        raise RunFailure(
            f'{url} sends a web page or a Git LFS pointer instead of the file',
            f'The address needs a login or has moved: {elsewhere}.',
        )
    part.restart()  # the server does not support ranges, or has another version now
    length = headers.get('Content-Length', '')
    total = int(length) if re.fullmatch(_NUMBER, length) else None
    part.remember(url, headers, total)
    return total


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """What arrives, in pieces of any size. A server that sends too slowly counts as a broken connection."""
    began, arrived, pending = time.monotonic(), 0, b''
    trouble: Exception | None = None
    while trouble is None:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a chunk of no sensible length
            chunk, trouble = b'', _Again(f'the connection broke ({error or type(error).__name__})')
        pending, arrived = pending + chunk, arrived + len(chunk)
        seconds = time.monotonic() - began
        if chunk and seconds >= PATIENCE:
            if arrived < SLOWEST * PATIENCE:
                trouble = _Again(f'only {arrived:,} bytes came in {seconds:.0f} seconds')
            began, arrived = began + seconds, 0
        if pending and (len(pending) >= PIECE or not chunk or trouble is not None):
            yield pending
            pending = b''
        if not chunk:
            break
    if trouble is not None:
        raise trouble


def _check_length(url: str, length: int, size: int | None, elsewhere: str) -> None:
    """Raise if the file is longer than it can be."""
    if length > (LARGEST if size is None else size):
        known = f'{size:,} are published' if size is not None else f'at most {LARGEST:,} are fetched'
        raise RunFailure(f'{url} sends {length:,} bytes or more, and {known}', f'It is another file. Instead, {elsewhere}.')


def _check_room(part: PartialDownload, total: int | None) -> None:
    free = shutil.disk_usage(part.path.parent).free
    missing = (total or 0) - part.size - free
    if missing > 0:
        raise RunFailure(
            f'{part.target} needs {_megabytes((total or 0) - part.size)} more and its disk has {_megabytes(free)} left: '
            f'{_megabytes(missing)} are missing',
            _DISK_HINT,
        )


def _megabytes(size: int) -> str:
    return f'{size / 1e6:,.1f} MB'


# the connection


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only, and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme not in _SCHEMES or (req.type == 'https' and scheme == 'http'):
            raise RunFailure(
                f'{req.full_url} redirects to {newurl}, which is not safe to follow', 'Look at the address in a browser.'
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Patient:
    """A connection whose answer must begin within ``PATIENCE``, also if the server sends it byte by byte."""

    def getresponse(self) -> http.client.HTTPResponse:
        timer = threading.Timer(PATIENCE, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            response: http.client.HTTPResponse = super().getresponse()  # type: ignore[misc]
            return response
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        connection: Any = self
        if connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)


class _Connection(_Patient, http.client.HTTPConnection):
    pass


class _SecureConnection(_Patient, http.client.HTTPSConnection):
    pass


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req, context=self._context)  # type: ignore[attr-defined]


def opener() -> urllib.request.OpenerDirector:
    """An opener for http and https only, through the proxies of the environment."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _Http(),
        _Https(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _open(url: str, conditions: dict[str, str], elsewhere: str) -> http.client.HTTPResponse:
    """The response to a request. Raises HTTPError only for 416."""
    request = urllib.request.Request(url, headers={'User-Agent': f'vq/{__version__}', **conditions})
    try:
        response: http.client.HTTPResponse = opener().open(request, timeout=SILENCE)
        return response
    except urllib.error.HTTPError as error:
        if error.code == 416 and conditions:
            raise
        error.close()
        if error.code in _PASSING:
            asked = error.headers.get('Retry-After', '')
            wait = float(asked) if re.fullmatch(_NUMBER, asked) else None
            raise _Again(f'status {error.code} {error.reason}', pause=wait) from None
        what = {404: 'the server has no such file', 410: 'the file is gone', 401: 'a login is needed', 403: 'access is denied'}
        said = f' ({what[error.code]})' if error.code in what else ''
        raise RunFailure(
            f'{url}: status {error.code} {error.reason}{said}', f'The file may have moved; look at its source, or {elsewhere}.'
        ) from None
    except urllib.error.URLError as error:
        raise _Again(f'there is no connection ({error.reason})', most=UNREACHABLE) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Again(f'the connection broke ({error or type(error).__name__})') from error
