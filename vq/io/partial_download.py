"""An unfinished download: ``NAME.part`` holds the bytes received, ``NAME.part.json`` their address and version."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vq.core.errors import RunFailure, UserError
from vq.core.reading import read_json
from vq.io.atomic import write_json

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # mounts without locks; two downloads rarely meet
_PIECE = 1 << 20


class PartialDownload:
    """``NAME.part``: locked while open, hashed while it is written, renamed to ``NAME`` when complete."""

    def __init__(self, target: Path, algorithm: str) -> None:
        self.target = target
        self.path = target.with_name(f'{target.name}.part')
        self.note = target.with_name(f'{target.name}.part.json')
        self.begun = 0  # bytes that earlier requests had received
        self._names = {algorithm, 'sha256'}
        self._file = self._open()
        self.size = os.fstat(self._file).st_size
        self._hashes = self._fresh()

    def _open(self) -> int:
        while True:
            if self.path.is_symlink() or (self.path.exists() and not self.path.is_file()):
                raise UserError(
                    f'{self.path} is a link, or no file: writing to it would overwrite something else',
                    'Remove it, then run this again.',
                )
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    os.close(file)
                    if error.errno != errno.EWOULDBLOCK:
                        raise
                    raise RunFailure(
                        f'another process is fetching {self.target} right now', 'Wait for it, then run this again.'
                    ) from None
            if self.path.exists() and os.path.samestat(os.fstat(file), os.stat(self.path)):
                return file
            os.close(file)  # the process that held the lock has just renamed the file

    def _fresh(self) -> dict[str, Any]:
        return {name: hashlib.new(name, usedforsecurity=False) for name in self._names}

    def hexdigest(self, algorithm: str) -> str:
        return str(self._hashes[algorithm].hexdigest())

    def _noted(self) -> dict[str, Any]:
        try:
            noted = read_json(self.note)
        except (OSError, ValueError):
            return {}
        return noted if isinstance(noted, dict) else {}

    def resumable(self, url: str) -> int:
        """The number of bytes received from ``url``; 0 if the server sent neither an ETag nor a date to resume by."""
        noted = self._noted()
        return self.size if noted.get('url') == url and _version(noted) else 0

    def conditions(self) -> dict[str, str]:
        """Headers that request the rest of the file, if the server still has the same version."""
        return {'Range': f'bytes={self.size}-', 'If-Range': _version(self._noted())}

    def contradicts(self, headers: Message) -> bool:
        """Whether a response belongs to another version: some servers ignore If-Range."""
        noted = self._noted()
        return any(noted.get(key) and headers.get(key) and noted[key] != headers[key] for key in ('ETag', 'Last-Modified'))

    def remember(self, url: str, headers: Message, total: int | None) -> None:
        known = {key: headers.get(key) for key in ('ETag', 'Last-Modified')}
        write_json(self.note, {'url': url, **known, 'size': total})

    def rehash(self) -> None:
        """Hash the bytes on the disk, before more are written."""
        self._hashes, self.begun = self._fresh(), self.size
        os.lseek(self._file, 0, os.SEEK_SET)
        while chunk := os.read(self._file, _PIECE):
            for known in self._hashes.values():
                known.update(chunk)

    def restart(self) -> None:
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self.size, self.begun, self._hashes = 0, 0, self._fresh()
        self.note.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            count = os.write(self._file, view)
            for known in self._hashes.values():
                known.update(view[:count])
            self.size += count
            view = view[count:]

    def commit(self) -> None:
        os.fsync(self._file)
        os.replace(self.path, self.target)
        self.note.unlink(missing_ok=True)
        folder = os.open(self.target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def set_aside(self) -> Path:
        bad = self.target.with_name(f'{self.target.name}.bad')
        os.replace(self.path, bad)
        self.note.unlink(missing_ok=True)
        return bad

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None and self.size == 0:
            self.path.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)
        os.close(self._file)


def _version(noted: dict[str, Any]) -> str:
    """The value for If-Range: the ETag unless it is weak, otherwise the Last-Modified date."""
    tag = str(noted.get('ETag') or '')
    return tag if tag.startswith('"') else str(noted.get('Last-Modified') or '')
