"""Stores through mmengine.fileio: LMDB files, and the back ends that others register there. Needs the extra ``mm``.

``register`` makes our readers of S3 and of http back ends of mmengine, so that its parts and those of mmcv read the same
addresses. mmengine has none for S3 (its prefix means Petrel), and that for http waits for ever.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any

from vq.core.errors import UserError, listing
from vq.io.stores import Missing, Stat


def _fileio(why: str) -> Any:
    try:
        from mmengine import fileio
    except ImportError as error:
        raise UserError(f'{why} need mmengine, which cannot be imported: {error}', "pip install 'vq[mm]'") from error
    return fileio


class LmdbStore:
    """``lmdb://FILE/KEY``: FILE ends with ``.lmdb``. Relative files are ``lmdb://data/x.lmdb``, others ``lmdb:///data/x.lmdb``."""

    local = True

    def stat(self, url: str) -> Stat:
        return Stat(len(self._get(url)))

    def read(self, url: str, start: int, stop: int, version: str) -> bytes:
        return self._get(url)[start:stop]

    def walk(self, url: str) -> Iterator[tuple[str, Stat]]:
        file, prefix = _split(url)
        prefix = f'{prefix.rstrip("/")}/' if prefix else ''
        for name, size in _keys(file):
            if name.startswith(prefix):
                yield name.removeprefix(prefix), Stat(size)

    def _get(self, url: str) -> bytes:
        file, key = _split(url)
        value = _lmdb(file, os.getpid()).get(key) if key.isascii() else None  # mmengine writes keys in ASCII
        if value is None:
            raise Missing(f'{file} has no key {key!r}')
        return bytes(value)


def _split(url: str) -> tuple[str, str]:
    """File and key of an address."""
    text = url.partition('://')[2]
    file, end, key = text.partition('.lmdb')
    if not end or (key and not key.startswith('/')):
        raise UserError(f"'{url}' names no LMDB file", 'Write lmdb://FILE.lmdb/KEY; the file is a folder with data.mdb in it.')
    return f'{file}.lmdb', key.lstrip('/')


@functools.lru_cache(8)
def _lmdb(file: str, process: int) -> Any:
    """The back end of this process: an open LMDB file does not survive a fork."""
    backend = _fileio('addresses lmdb://...').get_file_backend(backend_args={'backend': 'lmdb', 'db_path': file})
    try:
        backend.get('.')  # opens the file: a missing one is an error here
    except Exception as error:  # the package lmdb defines its errors in a module of its own
        raise UserError(
            f'{file} cannot be opened: {error}', 'Give the path of an LMDB folder, with data.mdb in it.'
        ) from error
    return backend


def _keys(file: str) -> list[tuple[str, int]]:
    with _lmdb(file, os.getpid())._client.begin() as transaction:
        try:
            return [(key.decode(), len(value)) for key, value in transaction.cursor()]
        except UnicodeDecodeError as error:
            raise UserError(f'{file} has a key that is not UTF-8: {error}', 'Keys are the paths of images.') from error


class MmStore:
    """A back end that somebody has registered in mmengine.fileio. It gives whole files, without a version: no cache."""

    local = True

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme

    def stat(self, url: str) -> Stat:
        return Stat(len(self._get(url)))

    def read(self, url: str, start: int, stop: int, version: str) -> bytes:
        return self._get(url)[start:stop]

    def walk(self, url: str) -> Iterator[tuple[str, Stat]]:
        backend = _fileio(f'addresses {self.scheme}://...').get_file_backend(url)
        for name in backend.list_dir_or_file(url, list_dir=False, recursive=True):
            yield str(name), Stat(-1)

    def _get(self, url: str) -> bytes:
        try:
            return bytes(_fileio(f'addresses {self.scheme}://...').get_file_backend(url).get(url))
        except FileNotFoundError as error:
            raise Missing(str(error)) from error


def of_mmengine(scheme: str) -> MmStore:
    known = _fileio(f'addresses {scheme}://...').backends.registry_utils.prefix_to_backends
    if scheme not in known:
        names = {'s3', 'http', 'https', 'lmdb', *filter(None, known)}
        raise UserError(
            f'nothing reads addresses {scheme}://...',
            f'There is: {listing(names)}. Or register a back end in mmengine.fileio.',
        )
    return MmStore(scheme)


def register() -> None:
    """Make s3://, http:// and https:// of ``mmengine.fileio`` read by this package: with attempts, time limits, the cache."""
    fileio = _fileio('its file back ends')
    from vq.io import remote

    class RemoteBackend(fileio.BaseStorageBackend):  # type: ignore[misc,name-defined]
        def get(self, filepath: str) -> bytes:
            return remote.read_bytes(str(filepath))

        def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
            return self.get(filepath).decode(encoding)

        def exists(self, filepath: str) -> bool:
            try:
                remote.stat(str(filepath))
            except FileNotFoundError:
                return False
            return True

        def list_dir_or_file(
            self, dir_path: str, list_dir: bool = True, list_file: bool = True, suffix: Any = None, recursive: bool = False
        ) -> Iterator[str]:
            names = [name for name, _ in remote.walk(str(dir_path))]
            folders = {'/'.join(name.split('/')[:depth]) for name in names for depth in range(1, name.count('/') + 1)}
            for name in [*(sorted(folders) if list_dir else ()), *(names if list_file else ())]:
                if (recursive or '/' not in name) and (suffix is None or name.endswith(suffix)):
                    yield name

    fileio.register_backend('vq', RemoteBackend, force=True, prefixes=['s3', 'http', 'https'])
