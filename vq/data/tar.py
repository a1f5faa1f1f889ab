"""Random access to the members of tar files: an index of names, places and sizes, made once.

The index is kept in the user's cache (``$XDG_CACHE_HOME/vq/tars``, by default below ``~/.cache``), since the folder of the tar
can be read-only. It holds for a size and time of the file. Each member also has the CRC-32 of its header, which is compared at
every read, so a tar that was changed in other ways is noticed too. Nothing is unpacked: names are no paths here.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from vq.core.errors import ConfigError, UserError
from vq.data.names import Names
from vq.io.atomic import write_bytes

BLOCK = 512
EMPTY = 10240  # bytes of a tar without members, at most
LONGEST = 1 << 20  # bytes of a long name, or of the extended header of a member
OPEN = 64  # tars of a process that stay open
COMPRESSED = {
    b'\x1f\x8b': 'gunzip',
    b'BZh': 'bunzip2',
    b'\xfd7zXZ': 'unxz',
    b'\x28\xb5\x2f\xfd': 'unzstd',
}  # first bytes -> tool
FILES = (b'0', b'\0', b'7')  # types of members that are regular files
VERSION = 1


class Member(NamedTuple):
    name: str
    offset: int  # of its content
    size: int
    check: int  # CRC-32 of its header, the 512 bytes before the content


def members(descriptor: int, where: str, start: int = 0, end: int | None = None) -> Iterator[Member]:
    """The regular files in a tar, which lies from ``start`` to ``end`` in an open file. Links and folders are left out."""
    end = os.fstat(descriptor).st_size if end is None else end
    begin = os.pread(descriptor, 8, start)
    if tool := next((tool for mark, tool in COMPRESSED.items() if begin.startswith(mark)), None):
        raise ConfigError(f'{where} is compressed, and members of a compressed tar cannot be read alone', f'{tool} {where}')
    place, extended, first = start, dict[str, str](), True
    while place + BLOCK <= end:
        header = os.pread(descriptor, BLOCK, place)
        if header == bytes(BLOCK):
            if first and end - start > EMPTY:
                raise ConfigError(f'{where} is no tar file: it begins with zeros', 'Copy it again.')
            return
        if not _is_header(header):
            _refuse(header, where, place - start, first)
        first, kind, content = False, header[156:157], place + BLOCK
        size = _number(header[124:136], where)
        if 'size' in extended and kind not in (b'x', b'g', b'L', b'K'):
            size = _decimal(extended['size'], where)
        if size > end - content:
            raise ConfigError(f'{where} is cut off: a member at byte {place - start:,} has {size:,} bytes', 'Copy it again.')
        if kind in (b'x', b'g', b'L', b'K'):  # they describe the next member; g describes all others, and sets no names
            if size > LONGEST:
                raise ConfigError(f'{where} has a header of {size:,} bytes at byte {place - start:,}', 'Write the tar again.')
            data = os.pread(descriptor, size, content)
            if kind == b'L':
                extended['path'] = _text(data.rstrip(b'\0'), where)
            elif kind == b'x':
                extended |= _records(data, where)
        else:
            if kind in FILES:
                name = extended.get('path') or _name(header, where)
                if not name.endswith('/'):
                    yield Member(name.removeprefix('./'), content, size, zlib.crc32(header))
            extended = {}
        place = content + -(-size // BLOCK) * BLOCK
    raise ConfigError(
        f'{where} ends without the mark of the end, two blocks of zeros: it is empty, or cut off',
        f'Copy it again. If it is known to be complete: head -c 1024 /dev/zero >> {where}',
    )


def _is_header(header: bytes) -> bool:
    """Whether the checksum is right: the sum of all bytes, with spaces in place of the checksum."""
    stated = header[148:156].strip(b' \0')
    if len(header) < BLOCK or not stated or not all(48 <= digit < 56 for digit in stated):
        return False
    return int(stated, 8) == sum(header[:148]) + 256 + sum(header[156:])


def _refuse(header: bytes, where: str, place: int, first: bool) -> NoReturn:
    if first:
        raise ConfigError(f'{where} is no tar file: it begins with {header[:8]!r}', 'Copy it again.')
    raise ConfigError(f'{where} is damaged at byte {place:,}: there is no header of a member', 'Copy it again.')


def _number(field: bytes, where: str) -> int:
    """Octal digits, or a binary number if the first bit is set (above 8 GB)."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:])
    digits = field.strip(b' \0')
    if digits and not all(48 <= digit < 56 for digit in digits):
        raise ConfigError(f'{where} is damaged: the size of a member is {field!r}', 'Copy it again.')
    return int(digits or b'0', 8)


def _decimal(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ConfigError(f'{where} is damaged: the size of a member is {text!r:.40}', 'Copy it again.')
    return int(text)


def _name(header: bytes, where: str) -> str:
    name, prefix = header[:100].split(b'\0')[0], header[345:500].split(b'\0')[0]
    joined = prefix + b'/' + name if prefix and header[257:263] == b'ustar\0' else name
    return _text(joined, where)


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f'{where}: the name {data!r:.80} is not UTF-8, and names are the ids of samples', 'Rename it.'
        ) from error


def _records(data: bytes, where: str) -> dict[str, str]:
    """path and size in an extended header: records ``LENGTH KEY=VALUE\\n``."""
    found = {}
    while data:
        length, _, rest = data.partition(b' ')
        if not length.isdigit() or not len(length) < int(length[:8]) <= len(data) or len(length) > 8:
            raise ConfigError(f'{where} is damaged: an extended header has a wrong length', 'Copy it again.')
        key, _, value = rest[: int(length) - len(length) - 2].partition(b'=')
        if key in (b'path', b'size'):
            found[key.decode()] = _text(value, where)
        data = data[int(length) :]
    return found


class TarIndex(NamedTuple):
    """The members of one tar; ``nested``: also those of the tars in it, as TAR/NAME."""

    names: Names
    offsets: np.ndarray  # (count,) int64
    sizes: np.ndarray  # (count,) int64
    checks: np.ndarray  # (count,) uint32


def index_of(path: Path, nested: bool = False) -> TarIndex:
    """The index of a tar, from the cache if the file has not changed since."""
    try:
        descriptor = _open(path)
    except OSError as error:
        raise ConfigError(f'{path} cannot be read: {error.strerror or error}', 'See its path and its permissions.') from error
    try:
        status = os.fstat(descriptor)
        stamp = [VERSION, int(nested), status.st_size, status.st_mtime_ns]
        found = _cached(path, stamp)
        if found is None:
            found = _scan(descriptor, path, nested)
            _keep(path, stamp, found)
        return found
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # without O_NONBLOCK a pipe waits for its writer
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError('not a regular file')
    return descriptor


def _scan(descriptor: int, path: Path, nested: bool) -> TarIndex:
    found = list(members(descriptor, str(path)))
    for outer in [member for member in found if nested and member.name.endswith('.tar')]:
        inside = members(descriptor, f'{path}/{outer.name}', outer.offset, outer.offset + outer.size)
        found += [inner._replace(name=f'{outer.name}/{inner.name}') for inner in inside]
    return TarIndex(
        Names(member.name for member in found),
        np.array([member.offset for member in found], dtype=np.int64),
        np.array([member.size for member in found], dtype=np.int64),
        np.array([member.check for member in found], dtype=np.uint32),
    )


def _file_of(path: Path) -> Path:
    """Where the index of a tar is kept."""
    root = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return Path(root) / 'vq' / 'tars' / f'{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.npz'


def _cached(path: Path, stamp: list[int]) -> TarIndex | None:
    try:
        with np.load(_file_of(path), allow_pickle=False) as kept:
            if kept['stamp'].tolist() != stamp:
                return None
            index = TarIndex(Names.of(kept['ends'], kept['text']), kept['offsets'], kept['sizes'], kept['checks'])
            parts = b''.join(part.tobytes() for part in (*index.names.arrays(), *index[1:]))
            whole = len(index.names) == len(index.offsets) == len(index.sizes) == len(index.checks)
            return index if whole and kept['digest'].tobytes() == hashlib.sha256(parts).digest() else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None  # there is none, or it is damaged: it is made again


def _keep(path: Path, stamp: list[int], index: TarIndex) -> None:
    ends, text = index.names.arrays()
    digest = hashlib.sha256(b''.join(part.tobytes() for part in (ends, text, *index[1:]))).digest()
    parts: dict[str, Any] = {'offsets': index.offsets, 'sizes': index.sizes, 'checks': index.checks}
    with contextlib.suppress(OSError, UserError):  # no home folder, a full disk: the next process makes it again
        made = io.BytesIO()
        np.savez(made, stamp=np.array(stamp), digest=np.frombuffer(digest, np.uint8), ends=ends, text=text, **parts)
        write_bytes(_file_of(path), made.getvalue())


class TarFiles:
    """Tars that are open in this process, the last ones used. Forked workers share the descriptors: they have no place."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, int] = OrderedDict()

    def read(self, path: Path, offset: int, size: int, check: int) -> bytes:
        """The content of a member of the index. An error if another member is there now."""
        if path not in self._open:
            try:
                self._open[path] = _open(path)
            except OSError as error:
                raise UserError(f'{path} cannot be read any more: {error.strerror or error}', 'See where it went.') from error
            while len(self._open) > OPEN:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(path)
        data = os.pread(self._open[path], BLOCK + size, offset - BLOCK)
        if len(data) < BLOCK + size or zlib.crc32(data[:BLOCK]) != check:
            _file_of(path).unlink(missing_ok=True)
            raise UserError(f'{path} was changed since it was indexed', 'Start again: it is indexed anew.')
        return data[BLOCK:]

    def __getstate__(self) -> dict[str, Any]:
        return {'_open': OrderedDict()}

    def __del__(self) -> None:
        for descriptor in getattr(self, '_open', {}).values():
            with contextlib.suppress(OSError):
                os.close(descriptor)
