"""One file from the network: resumed where it stopped, checked, and put in its place whole or not at all.

What arrives is gathered in ``NAME.part`` beside the target, and the next call asks for the rest of that version only. A
file with a wrong digest is kept as ``NAME.bad`` for whoever wants to look, and is never used.
"""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from vq import __version__
from vq.core.errors import RunFailure, UserError
from vq.io.partial_download import PartialDownload
from vq.io.writer import disk_errors

Progress = Callable[[int, int | None], None]  # bytes that are there, bytes in all if the server says it

CHUNK = 1 << 18
ATTEMPTS = 5  # of a connection that breaks
UNREACHABLE = 2  # attempts where there was no connection at all: most likely there is no network
SILENCE = 30.0  # seconds without a byte after which a connection counts as broken
LONGEST_PAUSE = 30.0

_SCHEMES = ('http', 'https')
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses worth another attempt
_PAGE = (b'<!doctype html', b'<html', b'version https://git-lfs')
_LENGTHS = {'sha256': 64, 'md5': 32}
_DISK_HINT = 'Free some space there and call this again: it goes on where it stopped. Or choose another folder with --root.'


@dataclasses.dataclass(frozen=True)
class Digest:
    """What a file must hash to, whole or its first digits."""

    algorithm: str
    digits: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        algorithm, _, digits = text.partition(':')
        length = _LENGTHS.get(algorithm, 0)
        if not re.fullmatch('[0-9a-f]{8,}', digits) or len(digits) > length:
            raise UserError(f"'{text}' is no digest", 'Give sha256:DIGITS or md5:DIGITS, at least the first 8 of them.')
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
    resumed: int  # bytes that an earlier call had left


class _Again(Exception):
    """The attempt failed, and another one may not. ``most`` attempts are worth it; ``pause`` is what the server asks for."""

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
    expected_by: str = 'what was asked for',
    public_url: str | None = None,
) -> Received:
    """Fetch ``url`` to ``target``, which must lie below ``root`` if that is given.

    ``pause`` seconds pass before the second attempt, and twice as many before each further one. ``expected_by`` says in
    messages whose digest it is, ``public_url`` what address to name in advice where ``url`` is a copy on another host.
    """
    check_address(url)
    if root is not None:
        check_inside(target, root)
    wanted = Digest.parse(digest) if digest else None
    elsewhere = f'fetch {public_url or url} on another machine, put it at {target.absolute()}, and call this again'
    with on_disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with PartialDownload(target, wanted.algorithm if wanted else 'sha256') as part:
            resumed = _gather(url, part, progress, pause, elsewhere)
            if wanted and not wanted.accepts(part.hexdigest(wanted.algorithm)) and resumed:
                part.restart()  # the older half may be the bad one
                resumed = _gather(url, part, progress, pause, elsewhere)
            found = part.hexdigest(wanted.algorithm) if wanted else ''
            if wanted and not wanted.accepts(found):
                bad = part.set_aside()
                raise RunFailure(
                    f'what {url} sends has the digest {wanted.algorithm}:{found}, and {wanted} is {expected_by}; '
                    f'it is kept as {bad} and not used',
                    f'It was damaged or replaced on its way, or its publisher changed it: delete {bad} and try again, or '
                    f'{elsewhere}.',
                )
            part.commit()
            return Received(part.size, part.hexdigest('sha256'), resumed)


def check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname or re.search(r'[\s\x00-\x1f\x7f]', url):
        raise UserError(f"'{url}' is no address of a file", 'Give an address that begins with https:// or http://.')
    if '@' in parts.netloc:
        raise UserError('an address with a user name or a password in it is not used', 'Leave the part before the @ out.')


def check_inside(target: Path, root: Path) -> None:
    """Refuse a target outside ``root``, whatever ``..`` and links lead there."""
    place = target.parent.resolve() / target.name
    if target.name == '..' or root.resolve() not in place.parents:
        raise UserError(
            f'{target} does not lie below {root.resolve()}, and nothing is written outside of it',
            'Remove the link or the .. that leads out, or choose the folder itself with --root.',
        )


def on_another_host(url: str, base: str) -> str:
    """The same path and query below ``base``: for a copy of the files on a host one can reach."""
    check_address(base)
    host, file = urlsplit(base), urlsplit(url)
    if host.query or host.fragment:
        raise UserError(f"'{base}' ends with a query or a fragment", 'Give https://HOST or https://HOST/FOLDER.')
    return urlunsplit((host.scheme, host.netloc, host.path.rstrip('/') + file.path, file.query, ''))


@contextmanager
def on_disk(target: Path) -> Iterator[None]:
    """Like ``disk_errors``, with advice for this kind of file."""
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


def _gather(url: str, part: PartialDownload, progress: Progress | None, pause: float, elsewhere: str) -> int:
    """Attempts until the part is the whole file; how many bytes were there before."""
    before, tries, answered = part.resumable(url), 0, False
    while True:
        tries += 1
        try:
            kept = _attempt(url, part, progress, elsewhere)
            return min(before, kept)
        except _Again as trouble:
            answered = answered or trouble.most == ATTEMPTS  # a network that was there a moment ago may come back
            if tries >= (ATTEMPTS if answered else trouble.most):
                left = f'; {part.size:,} bytes are kept in {part.path}' if part.size else ''
                go_on = 'Call this again, it goes on where it stopped; or' if part.size else 'Look at the network; or'
                raise RunFailure(
                    f'{url} cannot be fetched: {trouble} ({tries} attempts){left}', f'{go_on} {elsewhere}.'
                ) from trouble
            asked = pause * 2 ** (tries - 1) if trouble.pause is None else trouble.pause
            time.sleep(min(asked, LONGEST_PAUSE))


def _attempt(url: str, part: PartialDownload, progress: Progress | None, elsewhere: str) -> int:
    """One request for what is missing; how many bytes it did not have to send."""
    kept = part.resumable(url)
    try:
        response = _open(url, part.conditions() if kept else {}, elsewhere)
    except urllib.error.HTTPError as error:  # 416: nothing comes after what is there
        total = re.fullmatch(r'bytes \*/(\d+)', error.headers.get('Content-Range', ''))
        error.close()
        if total and int(total[1]) == kept:
            part.rehash()
            return kept
        part.restart()
        raise _Again('the server knows no such part of the file', pause=0.0) from None
    with response:
        chunks = _chunks(response)
        first = next(chunks, b'')
        total_size = _begin(url, response, first, part, kept, elsewhere)
        _check_room(part, total_size)
        if progress:
            progress(part.size, total_size)
        for chunk in itertools.chain([first], chunks):
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
    """Make the part fit what the server sends; the size of the whole file if the server says it.

    What is there is given up for a file only, never for the login page of some network.
    """
    headers = response.headers
    if response.status not in (200, 206):
        raise RunFailure(f'{url}: status {response.status} {response.reason}, which brings no file', f'Instead, {elsewhere}.')
    if headers.get('Content-Encoding', 'identity') not in ('identity', ''):
        raise RunFailure(f'{url} is sent in the form {headers["Content-Encoding"]}, not as it is', f'Instead, {elsewhere}.')
    if response.status == 206:
        place = re.fullmatch(r'bytes (\d+)-\d+/(\d+|\*)', headers.get('Content-Range', ''))
        if place is None or int(place[1]) != kept or part.contradicts(headers):
            part.restart()
            raise _Again('the server sends a part of another file', pause=0.0)
        if kept:
            part.rehash()
        else:
            part.restart()
        return None if place[2] == '*' else int(place[2])
    if headers.get_content_type() == 'text/html' or first[:512].lstrip().lower().startswith(_PAGE):
        raise RunFailure(
            f'{url} sends a page to read instead of the file', f'The address asks for a login or has moved: {elsewhere}.'
        )
    part.restart()  # the server knows no ranges, or has another version by now
    length = headers.get('Content-Length', '')
    total = int(length) if length.isdecimal() else None
    part.remember(url, headers, total)
    return total


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Again(f'the connection broke ({error or type(error).__name__})') from error
        if not chunk:
            return
        yield chunk


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
    """Follows to http and https only, and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme not in _SCHEMES or (req.type == 'https' and scheme == 'http'):
            raise RunFailure(
                f'{req.full_url} leads on to {newurl}, which is not safe to follow', 'Look at the address in a browser.'
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """http and https, through the proxies of the environment; no other scheme."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _open(url: str, conditions: dict[str, str], elsewhere: str) -> http.client.HTTPResponse:
    """The answer to a request. Raises HTTPError for 416 only."""
    request = urllib.request.Request(url, headers={'User-Agent': f'vq/{__version__}', **conditions})
    try:
        response: http.client.HTTPResponse = _opener().open(request, timeout=SILENCE)
        return response
    except urllib.error.HTTPError as error:
        if error.code == 416 and conditions:
            raise
        error.close()
        if error.code in _PASSING:
            asked = error.headers.get('Retry-After', '')
            wait = float(asked) if asked.isdecimal() else None
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
