"""All files below a folder: the images that training would read, and why every other file is not one of them."""

from __future__ import annotations

import collections
import dataclasses
import os
from pathlib import Path

from vq.core.errors import UserError
from vq.data.files import SUFFIXES, SYSTEM_FOLDERS

EXAMPLES = 3  # files of a reason that are named
MOST_FAULTS = 1000  # entries of the list of faults; the others are counted
OTHER_FORMATS = 'gif tif tiff heic heif avif jp2 jxl psd svg raw dng cr2 cr3 nef arw ico tga ppm pgm'
SYSTEM_FILES = ('thumbs.db', 'desktop.ini', 'ehthumbs.db', 'icon\r')
PICTURES = tuple(f'.{name}' for name in OTHER_FORMATS.split())
JPEGS = ('.jfif', '.jpe')
ARCHIVES = ('.zip', '.tar', '.gz', '.tgz', '.7z', '.rar', '.xz', '.bz2')


@dataclasses.dataclass
class Listing:
    """Paths are relative to the root, with slashes."""

    root: Path
    images: list[str] = dataclasses.field(default_factory=list)  # sorted
    ignored: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # reason -> files
    examples: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # reason -> some of these files
    faults: dict[str, str] = dataclasses.field(default_factory=dict)  # path -> why training refuses the whole folder

    def ignore(self, reason: str, path: str) -> None:
        self.ignored[reason] += 1
        if len(named := self.examples.setdefault(reason, [])) < EXAMPLES:
            named.append(_printable(path))

    def refuse(self, path: str, reason: str) -> None:
        if len(self.faults) < MOST_FAULTS:
            self.faults[_printable(path)] = reason


def list_files(root: Path) -> Listing:
    """Links are followed, except into a parent folder. Nothing is opened."""
    if not root.is_dir():
        raise UserError(
            f'{root} {"is a file" if root.exists() else "does not exist"}', 'Give the folder that holds the images.'
        )
    found = Listing(root)
    stack: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(str(root), '', ())]
    while stack:
        folder, prefix, above = stack.pop()
        try:
            status = os.stat(folder)
            here = (status.st_dev, status.st_ino)
            if here in above:
                found.ignore('link to a folder above it', prefix)
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = f'{prefix}/{entry.name}' if prefix else entry.name
                    if _is_folder(entry, name, found):
                        stack.append((entry.path, name, (*above, here)))
        except OSError as error:
            if not prefix:
                raise UserError(f'the folder {root} cannot be listed: {error.strerror}', 'See its permissions.') from error
            found.refuse(prefix, f'the folder cannot be listed: {error.strerror}')
    found.images.sort()
    return found


def _is_folder(entry: os.DirEntry[str], name: str, found: Listing) -> bool:
    """Whether to go into this entry; any other is noted."""
    if entry.name in SYSTEM_FOLDERS:
        found.ignore(f'{entry.name}: {SYSTEM_FOLDERS[entry.name]}', name)
    elif entry.name.startswith('.'):
        found.ignore('hidden: the name begins with a dot', name)
    elif _holds(entry, os.DirEntry.is_dir):
        return True
    elif not entry.name.lower().endswith(SUFFIXES):
        found.ignore(why_ignored(entry.name), name)
    elif not _holds(entry, os.DirEntry.is_file) and os.path.exists(entry.path):
        found.refuse(name, 'named like an image, and a pipe, socket or device')
    elif name != _printable(name):
        found.refuse(name, 'the name is not UTF-8')
    else:
        found.images.append(name)
    return False


def _holds(entry: os.DirEntry[str], question: object) -> bool:
    try:
        return bool(question(entry))  # type: ignore[operator]
    except OSError:  # a link that leads to itself: neither file nor folder
        return False


def why_ignored(name: str) -> str:
    lower = name.lower()
    suffix = os.path.splitext(lower)[1]
    if lower in SYSTEM_FILES:
        return f'{name.strip()}: a file of the system'
    if suffix in JPEGS:
        return f'{suffix}: JPEG by another name; rename to .jpg'
    if suffix in PICTURES:
        return f'{suffix}: pictures of a format that is not read; convert to PNG'
    if suffix in ARCHIVES:
        return f'{suffix}: an archive; unpack it'
    return f'{suffix}: no image' if suffix else 'no suffix'


def _printable(path: str) -> str:
    """Bytes that are not UTF-8 are shown as escapes."""
    return path.encode(errors='surrogateescape').decode(errors='backslashreplace')
