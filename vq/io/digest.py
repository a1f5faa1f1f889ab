"""One digest for every file: SHA-256. ``sha256sum`` checks it, and processors compute it in hardware."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def file_digest(path: str | Path) -> str:
    """The SHA-256 of a file, read in chunks. It is cached until the file's size, modification time or inode changes."""
    status = os.stat(path)
    return _digest(os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ino)


def file_digests(paths: Iterable[Path]) -> dict[Path, str]:
    """The digests of several files, computed in parallel and never taken from the cache."""
    ordered = list(paths)
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(ordered, pool.map(read_digest, ordered), strict=True))


def read_digest(path: str | Path) -> str:
    """The SHA-256 of the file's present content, never taken from the cache."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


@functools.lru_cache(64)
def _digest(path: str, size: int, modified: int, inode: int) -> str:
    return read_digest(path)
