"""One digest for every file: SHA-256, which ``sha256sum`` checks and which processors compute in hardware."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def file_digest(path: str | Path) -> str:
    """The SHA-256 of a file, read once in pieces; remembered until the file changes."""
    status = os.stat(path)
    return _digest(os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ino)


def file_digests(paths: Iterable[Path]) -> dict[Path, str]:
    """The digests of several files, side by side."""
    ordered = list(paths)
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(ordered, pool.map(read_digest, ordered), strict=True))


def read_digest(path: str | Path) -> str:
    """The SHA-256 of what the file holds now, never a remembered one."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


@functools.lru_cache(64)
def _digest(path: str, size: int, modified: int, inode: int) -> str:
    return read_digest(path)
