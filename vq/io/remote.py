"""Files that are not on this machine: ``s3://``, ``http://``, ``https://``, ``lmdb://``, and what mmengine.fileio knows.

Small files are read whole, large ones by ranges, several at once, into a cache on the local disk (``remote_cache.py``). A file
is read in one version: size and version come first, and content that changes meanwhile is an error, never a mixture.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from vq.core import reading
from vq.core.errors import RunFailure, UserError
from vq.io.http_store import HttpStore, is_below, join
from vq.io.remote_cache import cache, key_of
from vq.io.stores import Changed, Missing, Passing, Stat, Store, persist

logger = logging.getLogger('vq')

PIECE = 1 << 23  # bytes of a range of a large file
AT_ONCE = 4  # ranges
SMALL = 2**28  # bytes of a file that is read into memory
LINE_SECONDS = 20.0
_ALONE = f'process {secrets.token_hex(8)}'
_SCHEME = re.compile(r'([a-z][a-z0-9+.-]+)://')
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


def is_remote(place: object) -> bool:
    """Whether a text is an address, not a path."""
    return isinstance(place, str) and _SCHEME.match(place) is not None


@functools.lru_cache(64)
def store_of(scheme: str) -> Store:
    if scheme == 's3':
        from vq.io.s3 import S3Store

        return S3Store()
    if scheme in ('http', 'https'):
        return HttpStore()
    from vq.io import mm_stores

    return mm_stores.LmdbStore() if scheme == 'lmdb' else mm_stores.of_mmengine(scheme)


def _store(url: str) -> Store:
    match = _SCHEME.match(url)
    if match is None:
        raise UserError(f"'{url}' is not an address", 'Addresses are s3://..., http://..., https://..., lmdb://...')
    return store_of(match[1])


def stat(url: str) -> Stat:
    store = _store(url)
    try:
        return persist(url, lambda: store.stat(url))
    except Missing as error:
        raise FileNotFoundError(str(error)) from error


def below(url: str, path: str) -> str:
    """The address of ``path`` below ``url``."""
    return join(url, path) if url.startswith('http') else f'{url.rstrip("/")}/{path}'


def walk(url: str) -> Iterator[tuple[str, Stat]]:
    """(path, stat) of every file below an address; the size is -1 where the listing does not tell it."""
    store = _store(url)
    found = persist(url, lambda: list(store.walk(url)))
    for name, known in found:
        if not is_below(name):
            raise UserError(f'{url} lists {name!r:.80}, which is no plain path', 'Rename it there.')
        yield name, known


def read_bytes(url: str, known: Stat | None = None, largest: int = SMALL) -> bytes:
    """The content of a file, from the cache if it is there. ``known``: its size and version, if a listing told them.

    ``FileNotFoundError`` if there is none. A version other than the known one is an error.
    """
    store = _store(url)
    found = known if known is not None and known.size >= 0 and (known.version or store.local) else stat(url)
    if found.size > largest:
        raise ValueError(f'it has {found.size:,} bytes, and at most {largest:,} are read')
    name = _name(url)
    key = key_of({name: (url, found)})
    keeps = not store.local and found.version
    data = cache().read(key, name, found.size) if keeps else None
    if data is not None:
        return data
    try:
        data = persist(url, lambda: _whole(store, url, found))
    except Missing as error:
        raise FileNotFoundError(str(error)) from error
    except Changed as error:
        raise _changed(url) from error
    if keeps:
        cache().add(key, name, data)
    return data


def _whole(store: Store, url: str, known: Stat) -> bytes:
    data = store.read(url, 0, known.size, known.version)
    if len(data) != known.size:
        raise Passing(f'the connection broke after {len(data):,} of {known.size:,} bytes')
    digest = _MD5.fullmatch(known.version)
    if digest and url.startswith('s3') and hashlib.md5(data, usedforsecurity=False).hexdigest() != digest[1]:
        raise Passing('what arrived does not have the MD5 of its ETag')
    return data


def read_json(place: object, largest: int, deepest: int | None = reading.DEEPEST) -> Any:
    """``reading.read_json`` of a path or an address. Raises ``ValueError``, ``OSError``, or ``UserError`` for the network."""
    url = str(place)
    return (
        reading.parse_json(read_bytes(url, largest=largest), deepest)
        if is_remote(url)
        else reading.read_json(url, largest, deepest)
    )


def read_range(url: str, start: int, stop: int, known: Stat | None = None) -> bytes:
    """Bytes ``start`` to ``stop`` of a file."""
    store = _store(url)
    found = known or stat(url)
    wanted = max(min(stop, found.size) - start, 0)

    def read() -> bytes:
        data = store.read(url, start, start + wanted, found.version)
        if len(data) != wanted:
            raise Passing(f'the connection broke after {len(data):,} of {wanted:,} bytes')
        return data

    try:
        return persist(url, read)
    except Changed as error:
        raise _changed(url) from error
    except Missing as error:
        raise FileNotFoundError(str(error)) from error


def local_file(url: str, known: Stat | None = None) -> Path:
    """A copy of a file in the cache. It keeps its name. The path is valid until the cache needs its room."""
    name = _name(url)
    return local_files({name: (url, known or stat(url))}, url) / name


def local_files(files: dict[str, tuple[str, Stat]], what: str) -> Path:
    """A folder of the cache with copies of these files: path in the folder -> address, stat."""
    # a copy of a file without a version is for this process and its workers alone: it could have changed unnoticed
    files = {path: (url, known._replace(version=known.version or _ALONE)) for path, (url, known) in files.items()}
    key, keeper = key_of(files), cache()
    if (place := keeper.find(key)) is not None:
        if all(_has(place / path, known.size) for path, (_, known) in files.items()):
            return place
        keeper.delete(place)
    with keeper.filling(key, sum(known.size for _, known in files.values()), what) as folder:
        for path, (url, known) in files.items() if folder is not None else ():
            assert folder is not None
            target = folder / path
            if not target.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                _fetch(url, known, target)
    return keeper.place(key)


def forget(url: str, known: Stat) -> None:
    """Delete the copy of a file from the cache."""
    known = known._replace(version=known.version or _ALONE)
    if (place := cache().find(key_of({_name(url): (url, known)}))) is not None:
        cache().delete(place)


def _has(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _fetch(url: str, known: Stat, target: Path) -> None:
    """Fetch a file by ranges. The part that an interrupted call has written is complete up to its end, and stays."""
    part = target.with_name(f'.{target.name}.part')
    began = told = time.monotonic()
    with open(part, 'ab') as file, ThreadPoolExecutor(AT_ONCE) as pool:
        start = done = min(os.fstat(file.fileno()).st_size, known.size)
        pieces = [(low, min(low + PIECE, known.size)) for low in range(done, known.size, PIECE)]
        for some in range(0, len(pieces), AT_ONCE):
            for data in pool.map(lambda piece: read_range(url, piece[0], piece[1], known), pieces[some : some + AT_ONCE]):
                file.write(data)
                done += len(data)
            now = time.monotonic()
            if now - told > LINE_SECONDS:
                told = now
                rate = (done - start) / 1e6 / (now - began)
                logger.info('fetching %s: %d of %d MB, %.1f MB/s', url, done // 10**6, known.size // 10**6, rate)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, target)


def _name(url: str) -> str:
    return PurePosixPath(url.partition('://')[2].partition('?')[0]).name or 'file'


def _changed(url: str) -> RunFailure:
    return RunFailure(
        f'{url} has changed since this run looked at it: the run would mix two versions',
        'Start again, when nobody writes there: the new version is then read from the beginning.',
    )
