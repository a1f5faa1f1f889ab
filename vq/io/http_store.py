"""Files on a web server, read by ranges. Its listing is a file: ``index.txt``, one path a line.

The back end of mmengine for http has no time limit and reads whole files; this one takes its place, see ``mm_stores.py``.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from urllib.parse import quote, urlsplit, urlunsplit

from vq import __version__
from vq.core.errors import RunFailure, UserError
from vq.io import stores
from vq.io.download import check_address, opener
from vq.io.stores import Changed, Missing, Passing, Stat

INDEX = 'index.txt'
LARGEST_INDEX = 2**30  # bytes; that of ImageNet has 50,000,000
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_NUMBER = r'[0-9]{1,18}'


class HttpStore:
    local = False

    def stat(self, url: str) -> Stat:
        try:
            with self._open(url, 'HEAD', {}) as response:
                length = response.headers.get('Content-Length', '')
                if re.fullmatch(_NUMBER, length):
                    return Stat(int(length), version_of(response.headers))
        except urllib.error.HTTPError as error:
            if error.code not in (403, 405, 501):  # an address that is signed for GET alone
                raise _failure(url, error) from error
        with self._get(url, {'Range': 'bytes=0-0'}) as response:
            total = re.fullmatch(rf'bytes 0-0/({_NUMBER})', response.headers.get('Content-Range', ''))
            if response.status != 206 or total is None:
                raise RunFailure(f'{url}: the server does not say how long the file is', 'Copy the file, and give its path.')
            return Stat(int(total[1]), version_of(response.headers))

    def read(self, url: str, start: int, stop: int, version: str) -> bytes:
        if stop <= start:
            return b''
        with self._get(url, {'Range': f'bytes={start}-{stop - 1}'}) as response:
            found = version_of(response.headers)
            if version and found and found != version:
                raise Changed
            try:
                if response.status == 206:
                    place = re.fullmatch(rf'bytes ({_NUMBER})-.*', response.headers.get('Content-Range', ''))
                    if place is None or int(place[1]) != start:
                        raise Passing('the server sends another range than the one that was asked for')
                else:  # it does not know ranges
                    stores.gather(response.read1, start)
                return stores.gather(response.read1, stop - start)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise Passing(f'the connection broke ({error or type(error).__name__})') from error

    def walk(self, url: str) -> Iterator[tuple[str, Stat]]:
        """Lines of the index: a path below ``url``, then its size and version if they are known, with tabs between."""
        index = join(url, INDEX)
        try:
            known = self.stat(index)
        except Missing:
            raise UserError(
                f'{url} has no {INDEX}, and a web server does not list its files',
                f"Write one there: find . -type f -printf '%P\\n' > {INDEX}",
            ) from None
        if known.size > LARGEST_INDEX:
            raise UserError(f'{index} has {known.size:,} bytes', f'At most {LARGEST_INDEX:,} are read.')
        text = self.read(index, 0, known.size, known.version)
        if len(text) != known.size:
            raise Passing(f'the connection broke after {len(text):,} of {known.size:,} bytes')
        try:
            lines = text.decode().split('\n')
        except UnicodeDecodeError as error:
            raise UserError(f'{index} is not UTF-8: {error}', 'Write it anew.') from error
        for number, line in enumerate(lines, 1):
            name, *about = line.rstrip('\r').split('\t')
            if not name or name == INDEX:
                continue
            sized = bool(about) and re.fullmatch(_NUMBER, about[0]) is not None
            if not is_below(name) or len(about) > 2 or (about and not sized):
                raise UserError(
                    f'line {number} of {index} is no path below it: {line!r:.80}',
                    'A line is PATH, or PATH, size in bytes and version with tabs between.',
                )
            yield name, Stat(int(about[0]), about[1] if len(about) > 1 else '') if sized else Stat(-1)

    def _get(self, url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        try:
            return self._open(url, 'GET', headers)
        except urllib.error.HTTPError as error:
            raise _failure(url, error) from error

    def _open(self, url: str, method: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        check_address(quoted(url))
        request = urllib.request.Request(quoted(url), headers={'User-Agent': f'vq/{__version__}', **headers}, method=method)
        try:
            response: http.client.HTTPResponse = opener().open(request, timeout=stores.SILENCE)
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError as error:
            raise Passing(f'there is no connection ({error.reason})') from error
        except (OSError, http.client.HTTPException) as error:
            raise Passing(f'the connection broke ({error or type(error).__name__})') from error
        if response.headers.get('Content-Encoding', 'identity') not in ('identity', ''):
            raise RunFailure(f'{url} is sent with Content-Encoding {response.headers["Content-Encoding"]}', 'Turn it off.')
        return response


def version_of(headers: Message) -> str:
    return headers.get('ETag') or headers.get('Last-Modified') or ''


def quoted(url: str) -> str:
    """The address with the characters of its path that an address cannot have written as %XX; those written so stay."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=quote(parts.path, safe="/%:@!$&'()*+,;=~")))


def join(url: str, path: str) -> str:
    """The address of ``path`` below ``url``, whose query stays (a signature)."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f'{parts.path.rstrip("/")}/{quote(path)}'))


def is_below(name: str) -> bool:
    """Whether a listed name is a plain relative path."""
    return name.isprintable() and not any(part in ('', '.', '..') for part in name.split('/'))


def _failure(url: str, error: urllib.error.HTTPError) -> Exception:
    error.close()
    if error.code in (404, 410):
        return Missing(f'{url}: status {error.code} {error.reason}')
    if error.code in _PASSING:
        return Passing(f'status {error.code} {error.reason}')
    said = {401: 'a login is needed', 403: 'access is denied', 416: 'it is shorter than it was'}.get(error.code, 'no file')
    return RunFailure(f'{url}: status {error.code} {error.reason} ({said})', 'Look at the address in a browser.')
