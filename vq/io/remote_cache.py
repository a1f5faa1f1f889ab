"""Copies of remote files on this disk: bounded in bytes, the longest unused deleted first, shared by processes.

An entry is a folder ``entries/KK/KEY`` with the files as they were named. Its key holds address, size and version of each
file, so that changed content has another key. It appears by a rename when it is whole. Its modification time is that of its
last use. ``VQ_CACHE`` is the folder (default: ``$XDG_CACHE_HOME/vq/remote``), ``VQ_CACHE_GB`` the bound (20).

Files are only written and deleted here: a folder that something else writes to is not one for ``VQ_CACHE``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from vq.core.errors import UserError
from vq.io.stores import Stat

logger = logging.getLogger('vq')

DEFAULT_GB = 20.0
LOW = 0.9  # of the bound, to which entries are deleted at once
LEFT = 86400.0  # seconds after which an unfinished entry counts as left by a dead process


class Cache:
    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def place(self, key: str) -> Path:
        return self.folder / 'entries' / key[:2] / key

    def find(self, key: str) -> Path | None:
        """The folder of an entry, marked as used now."""
        place = self.place(key)
        try:
            os.utime(place)
        except OSError:
            return None
        return place

    def read(self, key: str, name: str, size: int) -> bytes | None:
        """The content of a file of an entry; None if it is not here. A file of another size is deleted."""
        place = self.find(key)
        if place is None:
            return None
        try:
            data = (place / name).read_bytes()
        except OSError:  # another process has just deleted it
            return None
        if len(data) != size:
            self.delete(place)
            return None
        return data

    def add(self, key: str, name: str, data: bytes) -> None:
        """Keep a small file. It is not flushed: ``read`` compares the size. A full disk costs the copy, not the run."""
        if len(data) > self.limit:
            return
        self.reserve(len(data))
        unfinished = self.folder / 'unfinished' / f'{key}-{secrets.token_hex(4)}'
        try:
            unfinished.mkdir(parents=True, exist_ok=True)
            (unfinished / name).write_bytes(data)
            self._commit(unfinished, key)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            logger.warning('%s cannot be kept in the cache %s: %s', name, self.folder, error.strerror)

    @contextlib.contextmanager
    def filling(self, key: str, size: int, what: str) -> Iterator[Path | None]:
        """A folder to fill with the files of an entry, or None if another process has made it meanwhile.

        What an interrupted call left in the folder is still there. It becomes the entry when the block ends.
        """
        if size > self.limit:
            raise UserError(
                f'{what} has {size / 1e9:.2f} GB, and the cache in {self.folder} keeps at most {self.limit / 1e9:.2f}',
                'Raise VQ_CACHE_GB.',
            )
        with self._locked(f'{key}.lock'):
            if self.find(key) is not None:
                yield None
                return
            unfinished = self.folder / 'unfinished' / key
            there = sum(path.stat().st_size for path in unfinished.rglob('*') if path.is_file())
            self.reserve(max(size - there, 0))
            unfinished.mkdir(parents=True, exist_ok=True)
            yield unfinished
            self._commit(unfinished, key)

    def reserve(self, size: int) -> None:
        """Make room for ``size`` bytes more, and count them."""
        with self._locked('usage.lock'):
            usage = self._usage() + size
            if usage > self.limit:
                usage = self._evict(self.limit * LOW - size) + size
            (self.folder / 'usage').write_text(str(usage))

    def _usage(self) -> int:
        try:
            return int((self.folder / 'usage').read_text())
        except (OSError, ValueError):
            return sum(size for _, size, _ in self._entries())

    def _entries(self) -> list[tuple[int, int, Path]]:
        """(time of the last use, bytes, folder) of each entry."""
        found = []
        for place in (self.folder / 'entries').glob('*/*'):
            with contextlib.suppress(OSError):  # deleted meanwhile
                size = sum(path.stat().st_size for path in place.rglob('*') if path.is_file())
                found.append((place.stat().st_mtime_ns, size, place))
        return found

    def _evict(self, target: float) -> int:
        """Delete the entries that were not used for longest, until at most ``target`` bytes are left. Returns what is left."""
        entries = sorted(self._entries())
        left = sum(size for _, size, _ in entries)
        for _, size, place in entries:
            if left <= target:
                break
            self.delete(place)
            left -= size
        for part in (self.folder / 'unfinished').glob('*'):
            with contextlib.suppress(OSError):
                size = sum(path.stat().st_size for path in part.rglob('*') if path.is_file())
                if time.time() - part.stat().st_mtime > LEFT:
                    shutil.rmtree(part)
                else:
                    left += size
        return left

    def delete(self, place: Path) -> None:
        """Moved away first, so that nobody finds half an entry. Maps of its files stay valid."""
        gone = self.folder / 'unfinished' / f'{place.name}-gone-{secrets.token_hex(4)}'
        gone.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(place, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _commit(self, unfinished: Path, key: str) -> None:
        place = self.place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.utime(unfinished)
        try:
            os.rename(unfinished, place)
        except OSError:
            if not place.is_dir():
                raise
            shutil.rmtree(unfinished, ignore_errors=True)  # the same entry, made by another process

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        folder = self.folder / 'locks'
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UserError(
                f'the cache of remote files {self.folder} cannot be written: {error.strerror}', 'Set VQ_CACHE to a folder.'
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


def key_of(files: dict[str, tuple[str, Stat]]) -> str:
    """The key of an entry of files: name in the entry -> address, size and version."""
    text = '\n'.join(f'{name}\t{url}\t{stat.size}\t{stat.version}' for name, (url, stat) in sorted(files.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def cache() -> Cache:
    """The cache that the environment names."""
    root = os.environ.get('VQ_CACHE')
    folder = Path(root) if root else Path(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')) / 'vq' / 'remote'
    text = os.environ.get('VQ_CACHE_GB') or str(DEFAULT_GB)
    try:
        size = float(text)
        if not math.isfinite(size) or size < 0:
            raise ValueError
    except ValueError:
        raise UserError(f"VQ_CACHE_GB is '{text}'", 'It is a number of gigabytes, 0 or more.') from None
    return Cache(folder.expanduser().absolute(), int(size * 1e9))
