"""Image folders that are not on this machine: listed once, then read file by file in the versions of that listing.

A local path never comes through here: ``place`` gives it back as ``Path``.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import unquote

import numpy as np

from vq.core.errors import ConfigError
from vq.data.names import Names
from vq.io import remote
from vq.io.http_store import INDEX
from vq.io.stores import Stat

_listings: dict[str, Listing] = {}  # of this process; forked workers have those of their parent


class Listing:
    """All files below an address, sorted, with the sizes and versions that they had when it was made."""

    def __init__(self, url: str) -> None:
        found = sorted(remote.walk(url))
        if not found:
            raise ConfigError(f'{url} holds no file', 'Look at the bucket and the path; upper and lower case differ.')
        self.names = Names(name for name, _ in found)
        self._sizes = np.array([known.size for _, known in found], dtype=np.int64)
        self._versions = Names(known.version for _, known in found)
        self.folders = frozenset(
            folder
            for name in {name.rpartition('/')[0] for name, _ in found}
            for folder in (name, *map(str, PurePosixPath(name).parents))
        )

    def stat(self, name: str) -> Stat | None:
        place = bisect.bisect_left(self.names, name)
        if place == len(self.names) or self.names[place] != name:
            return None
        return Stat(int(self._sizes[place]), self._versions[place])

    def below(self, folder: str) -> Iterator[str]:
        """Names below a folder, '' for all."""
        start = f'{folder}/' if folder else ''
        for place in range(bisect.bisect_left(self.names, start), len(self.names)):
            if not self.names[place].startswith(start):
                return
            yield self.names[place]


def _exists(url: str) -> bool:
    try:
        remote.stat(url)
    except FileNotFoundError:
        return False
    return True


def listing_of(url: str) -> Listing:
    if url not in _listings:
        _listings[url] = Listing(url)
    return _listings[url]


class RemotePath:
    """What datasets use of a ``Path``, for a folder or file below the address ``url``."""

    def __init__(self, url: str, path: str = '') -> None:
        self.url, self.path = url, path

    def __truediv__(self, other: str | PurePosixPath) -> RemotePath:
        return RemotePath(self.url, f'{self.path}/{other}'.strip('/'))

    def __str__(self) -> str:
        return remote.below(self.url, self.path) if self.path else self.url

    __repr__ = __str__

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.url, self.path, _listings.get(self.url))  # a worker that is not forked does not list again

    @property
    def name(self) -> str:
        return PurePosixPath(self.path or self.url.partition('://')[2]).name

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self.url, self.path.rpartition('/')[0])

    def expanduser(self) -> RemotePath:
        return self

    def resolve(self) -> RemotePath:
        return self

    def is_dir(self) -> bool:
        return not self.path or (self._has_index() and self.path in listing_of(self.url).folders)

    def is_file(self) -> bool:
        if not self._has_index():
            return _exists(str(self))
        return listing_of(self.url).stat(self.path) is not None

    def _has_index(self) -> bool:
        """Whether the files can be listed: a set of shards on a web server needs no index, its manifest is one."""
        return self.url in _listings or not self.url.startswith('http') or _exists(remote.below(self.url, INDEX))

    def exists(self) -> bool:
        return self.is_dir() or self.is_file()

    def iterdir(self) -> Iterator[RemotePath]:
        depth = len(self.path) + 1 if self.path else 0
        names = {name[depth:].partition('/')[0] for name in self.names()}
        return (self / name for name in sorted(names))

    def names(self) -> Iterator[str]:
        """Paths of all files below this folder, relative to the address."""
        return listing_of(self.url).below(self.path)


def _restored(url: str, path: str, listing: Listing | None) -> RemotePath:
    if listing is not None:
        _listings.setdefault(url, listing)
    return RemotePath(url, path)


def place(root: str | Path) -> Path:
    """The folder that ``root`` means: a path, or an address, which has the methods of a path that datasets use."""
    if isinstance(root, str) and remote.is_remote(root):
        return cast(Path, RemotePath(root.rstrip('/')))
    return Path(root).expanduser()


def read_remote(url: str, largest: int) -> bytes:
    """The content of a file, in the version of the listing that holds it."""
    return remote.read_bytes(url, _known(url), largest)


def _known(url: str) -> Stat | None:
    for root, listing in _listings.items():
        if url.startswith(root) and (found := listing.stat(_unquoted(root, url))) is not None:
            return found
    return None


def _unquoted(root: str, url: str) -> str:
    path = url[len(root) :].lstrip('/')
    return unquote(path) if root.startswith('http') else path
