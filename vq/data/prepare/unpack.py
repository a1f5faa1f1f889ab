"""Unpacking of a zip file: nothing is written outside of the folder, nothing beyond a bound, and files that are there stay.

A call that was interrupted goes on: a file of the size and CRC-32 that the archive states is not written again.
"""

from __future__ import annotations

import dataclasses
import shutil
import stat
import zipfile
import zlib
from pathlib import Path

from vq.core.errors import RunFailure, UserError
from vq.data.prepare.work import Work, placed

CHUNK = 1 << 20
FREE = 2**28  # bytes that any archive may expand to
MOST = 64  # times its own size that an archive may expand to; text packs to a tenth
MEMBERS = 2_000_000
_NOT_WANTED = ('__MACOSX',)


@dataclasses.dataclass(frozen=True)
class Unpacked:
    files: int
    written: int
    size: int  # bytes of all files


def unpack(archive: Path, folder: Path, work: Work, strip: str = '', only: tuple[str, ...] = ()) -> Unpacked:
    """Unpack ``archive`` below ``folder``. ``strip``, ``only``: see ``sources.Archive``."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = plan(archive, opened, strip, only)
            total = sum(info.file_size for info in members.values())
            _check_size(archive, folder, members, total)
            folders = {(folder / name).parent for name in members}
            for place in folders:
                _check_inside(place, folder)
            written = 0
            with work.track(f'unpacking {archive.name}', len(members), 'files') as count:
                for name, info in members.items():
                    target = folder / name
                    if not _is_there(target, info):
                        _write(opened, info, target)
                        written += 1
                    count.advance()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise RunFailure(
            f'{archive} cannot be unpacked: {error}', 'It is damaged or no zip file: delete it and run this again.'
        ) from error
    return Unpacked(len(members), written, total)


def plan(archive: Path, opened: zipfile.ZipFile, strip: str = '', only: tuple[str, ...] = ()) -> dict[str, zipfile.ZipInfo]:
    """The files that are wanted, by their path below the folder. Names that lead elsewhere are an error."""
    infos = opened.infolist()
    if len(infos) > MEMBERS:
        raise _refused(archive, f'it lists {len(infos):,} files, and at most {MEMBERS:,} are unpacked')
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removesuffix('/')
        parts = name.split('/')
        if any(part in ('', '.', '..') for part in parts) or '\\' in name or ':' in name or not name.isprintable():
            raise _refused(archive, f'it holds the name {info.filename!r:.80}, which may lead out of the folder')
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(archive, f'{name!r:.80} is a link or a device, not a file')
        if info.is_dir() or any(part in _NOT_WANTED or part.startswith('.') for part in parts):
            continue
        if strip:
            if not name.startswith(f'{strip}/'):
                continue
            name = name.removeprefix(f'{strip}/')
        if only and not any(name == wanted or name.startswith(f'{wanted}/') for wanted in only):
            continue
        if info.flag_bits & 1:
            raise _refused(archive, f'{name!r:.80} is encrypted')
        if name in members:
            raise _refused(archive, f'it holds {name!r:.80} twice')
        members[name] = info
    if not members:
        wanted = f'{strip or "."}/{{{",".join(only)}}}' if only else f'{strip}/' if strip else 'a file'
        there = sorted({info.filename.partition('/')[0] for info in infos})[:6]
        raise UserError(
            f'{archive} does not hold {wanted}; it holds: {", ".join(there) or "nothing"}',
            'It is another archive than the one that is expected here: move it away, and fetch the right one.',
        )
    return members


def _check_size(archive: Path, folder: Path, members: dict[str, zipfile.ZipInfo], total: int) -> None:
    size = archive.stat().st_size
    if total > FREE + MOST * size:
        raise _refused(archive, f'its {size:,} bytes expand to {total:,}')
    folder.mkdir(parents=True, exist_ok=True)
    missing = sum(info.file_size for name, info in members.items() if not (folder / name).exists())
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise RunFailure(
            f'{archive} expands to {missing / 1e6:,.1f} MB more, and the disk of {folder} has {free / 1e6:,.1f} MB left',
            'Free some space there and run this again: it goes on where it stopped. Or choose another folder with --root.',
        )


def _check_inside(place: Path, folder: Path) -> None:
    """A folder that is a link to another place would lead out."""
    root = folder.resolve()
    if place.resolve() != root and root not in place.resolve().parents:
        raise UserError(
            f'{place} leads out of {root}, and nothing is written outside of it', 'Remove the link that leads out.'
        )


def _is_there(target: Path, info: zipfile.ZipInfo) -> bool:
    if target.is_symlink() or not target.is_file() or target.stat().st_size != info.file_size:
        return False
    found = 0
    with open(target, 'rb') as file:
        while chunk := file.read(CHUNK):
            found = zlib.crc32(chunk, found)
    return found == info.CRC


def _write(opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    if target.is_dir():
        raise UserError(f'{target} is a folder, and the archive has a file of this name', 'Move the folder away.')
    count = 0
    with opened.open(info) as member, placed(target) as file:
        while chunk := member.read(CHUNK):  # compares the CRC-32 at the end
            count += len(chunk)
            file.write(chunk)
        if count != info.file_size:
            raise zipfile.BadZipFile(f'{info.filename!r:.80} has {count:,} bytes, and the archive states {info.file_size:,}')


def _refused(archive: Path, why: str) -> UserError:
    return UserError(f'{archive} is refused: {why}', 'It is not the published archive: delete it, and fetch it again.')
