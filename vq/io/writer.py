"""Writing one file to the disk, and error messages for a full disk, missing permissions and other failures."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from vq.core.errors import RunFailure, UserError

INTACT = 'what was there before is intact'

_BUFFER = 1 << 20  # bytes up to which small writes are collected
CHUNK = 1 << 24  # bytes into which large writes are cut
_FULL = {errno.ENOSPC: 'disk full', errno.EDQUOT: 'disk quota used up', errno.EFBIG: 'file size limit reached'}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISPLACED = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}


class Writer:
    """A new file. Size and SHA-256 are computed while writing; the end of the ``with`` block flushes it to the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self._pending = bytearray()
        self._error: OSError | None = None
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        view = memoryview(data).cast('B') if len(data) else memoryview(b'')
        if len(view) + len(self._pending) < _BUFFER:
            self._pending += view
        else:
            self.flush()
            self._put(view)
        return len(view)

    def flush(self) -> None:
        pending, self._pending = self._pending, bytearray()
        self._put(memoryview(pending))

    def _put(self, view: memoryview) -> None:
        try:
            while view:
                count = os.write(self._file, view[:CHUNK])
                self._hash.update(view[:count])
                self.size += count
                view = view[count:]
        except OSError as error:
            self._error = error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self.flush()
                os.fsync(self._file)
        finally:
            os.close(self._file)
        if self._error is not None and error is not self._error:
            raise self._error from error  # torch.save replaces the error of a full disk by its own


@contextmanager
def disk_errors(path: Path, needs: int | None = None, kept: str = INTACT) -> Iterator[None]:
    """Turn an OSError while ``path`` is written into an error with advice.

    ``needs`` is the approximate number of bytes; ``kept`` says in the message what is intact.
    """
    free = _free(path)
    try:
        yield
    except OSError as error:
        if error.filename is not None and not str(error.filename).startswith(str(path.parent)):
            raise  # an error of another file
        if error.errno in _FULL:
            wanted = '' if needs is None else f'needs about {needs / 1e6:.0f} MB, '
            had = 'free space unknown' if free is None else f'{free / 1e6:.0f} MB free'
            raise RunFailure(
                f'{_FULL[error.errno]} while writing {path} ({wanted}{had}); {kept}',
                'Free some space, keep fewer checkpoints, or write to another disk with --work-dir.',
            ) from error
        if error.errno in _DENIED:
            raise UserError(
                f'no permission to write {path}: {error.strerror}',
                'Give write permission there, or write elsewhere with --work-dir.',
            ) from error
        if error.errno in _MISPLACED:
            raise UserError(
                f'{path} cannot be written: {error.strerror} ({error.filename})',
                'Move what is in the way, or write elsewhere with --work-dir.',
            ) from error
        raise RunFailure(
            f'{path} cannot be written: {error.strerror or error}; {kept}', 'Look at the disk, then resume.'
        ) from error


def _free(path: Path) -> int | None:
    for folder in path.absolute().parents:
        try:
            return shutil.disk_usage(folder).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
