"""Archives of a dataset: fetched or found, checked, and unpacked once.

``archives/NAME.unpacked.json`` records what was unpacked from which bytes. With it, the archive is not read again; the archive
may then be deleted.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from vq.core.errors import UserError
from vq.core.reading import read_json
from vq.data.prepare.sources import Archive, Source
from vq.data.prepare.unpack import unpack
from vq.data.prepare.work import Work, placed
from vq.io.atomic import write_json
from vq.io.digest import file_digest
from vq.io.pretrained import obtain


class Bar(Protocol):
    """Shows how much of a file has arrived."""

    def show(self, done: int, total: int | None) -> None: ...


def prepare_archives(
    source: Source,
    work: Work,
    bar: Callable[[str], AbstractContextManager[Bar]],
    mirror: str | None = None,
    force: bool = False,
) -> None:
    """Make sure that all files of the archives are there."""
    missing = [archive for archive in source.archives if not _is_here(archive, work)]
    if source.by_hand and missing and not mirror:
        _ask(source, work, missing)
    for archive in source.archives:
        path = work.root / archive.file.path
        known = None if force else _record(archive, work.root)
        if known is not None and (not path.is_file() or path.stat().st_size == known.get('size')):
            work.say(f'{source.name}: {path.name} is unpacked, {known["files"]:,} files')
        elif source.by_hand and not path.is_file() and archive not in missing:
            work.say(f'{source.name}: {work.folder / archive.into} was unpacked by hand: its files are not checked')
        else:
            _obtain_and_place(source, archive, work, bar, mirror, force)
    for name, wanted in source.counts:
        found = sum(1 for entry in os.scandir(work.folder / name) if not entry.name.startswith('.'))
        doubt = '' if found == wanted else f', and {wanted:,} are published: look whether the archive is complete'
        work.say(f'{source.name}: {found:,} files in {work.folder / name}{doubt}')


def _obtain_and_place(
    source: Source,
    archive: Archive,
    work: Work,
    bar: Callable[[str], AbstractContextManager[Bar]],
    mirror: str | None,
    force: bool,
) -> None:
    path = work.root / archive.file.path
    file, base = archive.file, mirror
    if mirror and source.by_hand:  # the address of its publisher is a page, not a file
        file, base = dataclasses.replace(archive.file, url=f'{mirror.rstrip("/")}/{path.name}'), None
    with bar(path.name) as shown:
        outcome = obtain(file, work.root, base, force, shown.show, work.say)
    digest = file_digest(path)
    proof = f'digest {file.digest}' if file.digest else f'no published digest; sha256:{digest}'
    work.say(f'{source.name}: {path} {"is present" if outcome == "present" else outcome}, {proof}')
    found = _place(archive, path, work)
    write_json(_note(path), {'size': path.stat().st_size, 'sha256': digest, **found})
    work.say(f'{source.name}: {path.name}: {found["files"]:,} files in {work.folder / archive.into}')


def _place(archive: Archive, path: Path, work: Work) -> dict[str, Any]:
    folder = work.folder / archive.into
    if archive.is_zip:
        done = unpack(path, folder, work, archive.strip, archive.only)
        return {'files': done.files, 'bytes': done.size}
    with placed(folder / path.name) as file, open(path, 'rb') as opened:
        shutil.copyfileobj(opened, file)
    return {'files': 1, 'bytes': path.stat().st_size}


def _ask(source: Source, work: Work, missing: list[Archive]) -> None:
    steps = [f'{source.name}: {source.about}', f'licence: {source.licence}', f'page: {source.page}']
    steps += [f'{number}. {step.format(folder=work.folder)}' for number, step in enumerate(source.by_hand, 1)]
    places = ' and '.join(str(work.root / each.file.path) for each in missing)
    steps += [f'{len(source.by_hand) + 1}. put it at {places}, and run this again']
    work.say('\n'.join(steps))
    raise UserError(
        f'{places} is missing, and its licence asks you to fetch it yourself',
        f'Follow the steps above; or name a copy of yours with --mirror URL, which has {Path(missing[0].file.path).name}.',
    )


def _note(path: Path) -> Path:
    return path.with_name(f'{path.name}.unpacked.json')


def _record(archive: Archive, root: Path) -> dict[str, Any] | None:
    note = _note(root / archive.file.path)
    if not note.exists():
        return None
    try:
        found = read_json(note)
    except (OSError, ValueError) as error:
        raise UserError(f'{note} cannot be read: {error}', 'Delete it: the archive is then unpacked again.') from error
    return found if isinstance(found, dict) and isinstance(found.get('files'), int) else None


def _is_here(archive: Archive, work: Work) -> bool:
    """Whether the archive was unpacked, lies there, or was unpacked by hand."""
    if _record(archive, work.root) is not None or (work.root / archive.file.path).is_file():
        return True
    folder = work.folder / archive.into
    return bool(archive.only) and all((folder / name).exists() for name in archive.only)


def state_of(source: Source, root: Path, size: int) -> str:
    if source.makes and (root / source.makes.format(size=size)).is_dir():
        return 'made'
    done = sum(_record(archive, root) is not None for archive in source.archives)
    begun = any((root / f'{archive.file.path}{end}').exists() for archive in source.archives for end in ('', '.part'))
    if done < len(source.archives):
        return f'{done} of {len(source.archives)} archives' if done else 'begun' if begun else 'missing'
    return 'unpacked' if source.archives else 'missing'
