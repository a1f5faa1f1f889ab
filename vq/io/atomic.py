"""Atomic writes: a path holds the old or the new file or folder, never a mixture, whatever kills the writer.

Everything is written under a hidden name in the same folder (the aside), flushed to the disk, and renamed into place.
The name of an aside contains the host and the process that made it, so that ``sweep`` recognises those of dead runs.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vq.io.writer import CHUNK, Writer, disk_errors

MARKER = 'COMPLETE'  # marks a folder as complete: copied last, deleted first

_FOREIGN_AGE = 86400.0  # seconds after which an aside of another host counts as left by a dead run
_NO_FOLDER_RENAME = {errno.EXDEV, errno.EMFILE, errno.ENOSYS, errno.EOPNOTSUPP}  # on overlay and object store mounts
_ASIDE = re.compile(r'\.(?P<name>.+)\.(?P<kind>tmp|old)-(?P<host>\w+)-(?P<pid>\d+)-(?P<token>[0-9a-f]{8})')

_made: set[str] = set()  # tokens of this process's asides: after a container restart a dead process can have had the same pid

Complete = Callable[[Path], bool]


@contextmanager
def atomic_file(path: Path, needs: int | None = None) -> Iterator[Writer]:
    """A ``Writer``. Its file appears at ``path`` when the block ends without an error. ``needs``: its size, for messages."""
    with disk_errors(path, needs):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = _name_aside(path, 'tmp')
        try:
            with Writer(aside) as writer:
                yield writer
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)


def write_bytes(path: str | Path, data: bytes) -> None:
    with atomic_file(Path(path), len(data)) as writer:
        writer.write(data)


def write_text(path: str | Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + '\n'


@contextmanager
def atomic_folder(final: Path, complete: Complete = Path.is_dir) -> Iterator[Path]:
    """A hidden folder to fill. It becomes ``final`` if the block ends without an error; otherwise it is deleted."""
    with disk_errors(final):
        aside = make_aside(final)
        try:
            yield aside
            commit(aside, final, complete)
        except BaseException:
            discard(aside)
            raise


def make_aside(final: Path) -> Path:
    """An empty hidden folder next to ``final``, for ``commit`` or ``discard``."""
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = _name_aside(final, 'tmp')
    aside.mkdir()
    return aside


def discard(aside: Path) -> None:
    if aside.exists():
        _remove_or_warn(aside)


def commit(aside: Path, final: Path, complete: Complete = Path.is_dir) -> None:
    """Flush ``aside`` and rename it to ``final``.

    If ``final`` exists, this takes two renames. Between them ``standing`` finds the old folder.
    """
    _flush_tree(aside)
    old = None
    if os.path.lexists(final):
        if complete(final):
            old = _name_aside(final, 'old')
            move(final, old)
        else:
            remove_folder(final)
    try:
        move(aside, final)
    except BaseException:
        if old is not None:
            if os.path.lexists(final):
                remove_folder(final)
            move(old, final)
        raise
    _flush_folder(final.parent)
    if old is not None:
        _remove_or_warn(old)


def standing(final: Path, complete: Complete = Path.is_dir) -> Path | None:
    """The path of the complete ``final``: ``final``, or the hidden name that a writer killed between two renames left."""
    if complete(final):
        return final
    if not final.parent.is_dir():
        return None
    left = [
        path
        for path, parts in _asides(final.parent)
        if parts['kind'] == 'old' and parts['name'] == final.name and complete(path)
    ]
    return max(left, key=lambda path: path.stat().st_mtime, default=None)


def sweep(parent: Path, complete: Complete = Path.is_dir) -> list[Path]:
    """Clean up after dead runs: restore folders they moved away and did not replace, delete their other asides."""
    stale = [(path, parts) for path, parts in _asides(parent) if _is_stale(path, parts)] if parent.is_dir() else []
    for path, parts in sorted(stale, key=lambda item: item[1]['kind']):  # 'old' before 'tmp'
        final = parent / parts['name']
        if parts['kind'] == 'old' and path.is_dir() and complete(path) and not complete(final):
            if os.path.lexists(final):
                remove_folder(final)
            move(path, final)
        else:
            _remove_or_warn(path)
    return [path for path, _ in stale]


def remove_folder(path: Path) -> None:
    """Delete a folder, its marker first: a folder that is only partly deleted never looks complete."""
    (path / MARKER).unlink(missing_ok=True)
    gone = _name_aside(path, 'tmp')
    try:
        os.rename(path, gone)  # if the process is killed while deleting, sweep finds the rest
    except OSError as error:
        if error.errno not in _NO_FOLDER_RENAME:
            raise
        gone = path
    shutil.rmtree(gone)


def _remove_or_warn(path: Path) -> None:
    """Delete a file or folder. A failure is a warning only: the file costs disk space, not the run."""
    try:
        if path.is_dir():
            (path / MARKER).unlink(missing_ok=True)
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f'{path} is not needed any more and cannot be deleted: {error}', stacklevel=3)


def _name_aside(path: Path, kind: str) -> Path:
    token = secrets.token_hex(4)
    _made.add(token)
    return path.with_name(f'.{path.name}.{kind}-{_host()}-{os.getpid()}-{token}')


def _host() -> str:
    return re.sub(r'\W', '_', socket.gethostname())[:32] or 'host'


def _asides(parent: Path) -> list[tuple[Path, dict[str, str]]]:
    matches = [(entry, _ASIDE.fullmatch(entry.name)) for entry in parent.iterdir()]
    return [(entry, match.groupdict()) for entry, match in matches if match is not None]


def _is_stale(path: Path, parts: dict[str, str]) -> bool:
    if parts['host'] != _host():
        return time.time() - path.lstat().st_mtime > _FOREIGN_AGE
    if int(parts['pid']) == os.getpid():
        return parts['token'] not in _made
    try:
        os.kill(int(parts['pid']), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def move(source: Path, target: Path) -> None:
    """Rename a folder. If the file system cannot rename folders, copy it, the marker last."""
    try:
        os.rename(source, target)
        return
    except OSError as error:
        if error.errno not in _NO_FOLDER_RENAME:
            raise
    _copy_folder(source, target)
    _remove_or_warn(source)


def _copy_folder(source: Path, target: Path) -> None:
    target.mkdir()
    for entry in sorted(source.iterdir(), key=lambda entry: (entry.name == MARKER, entry.name)):
        if entry.is_dir():
            _copy_folder(entry, target / entry.name)
            continue
        with open(entry, 'rb') as file, Writer(target / entry.name) as writer:
            while chunk := file.read(CHUNK):
                writer.write(chunk)
    _flush_folder(target)


def _flush_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _flush(os.path.join(place, name), os.O_RDONLY)
        _flush_folder(Path(place))


def _flush_folder(folder: Path) -> None:
    _flush(str(folder), os.O_RDONLY | os.O_DIRECTORY)


def _flush(path: str, flags: int) -> None:
    file = os.open(path, flags)
    try:
        os.fsync(file)
    except OSError as error:
        # some mounts cannot fsync a file that is open for reading
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF):
            raise
    finally:
        os.close(file)
