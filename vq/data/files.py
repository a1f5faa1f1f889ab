"""Finding image files below a folder, in the same order on every machine, without opening them."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable
from pathlib import Path

from vq.core.errors import ConfigError, listing, nearest
from vq.data.remote_root import RemotePath
from vq.io.beton import refuse_beton

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp')  # compared in lower case
SPLITS = {'train': ('train',), 'validation': ('validation', 'val'), 'test': ('test',)}  # split -> names of its folder
OF_SPLITS = {folder: split for split, folders in SPLITS.items() for folder in folders}
SYSTEM_FOLDERS = {  # neither images nor classes
    '__MACOSX': 'an archive of macOS leaves it beside the images',
    'work_dirs': 'runs, whose pictures are no data; start commands in another folder',
}


def find_images(root: Path, below: str = '') -> list[str]:
    """Paths of images in ``root/below`` and deeper, as posix paths relative to ``root``, sorted.

    Links are followed, except into a parent folder, which would be a cycle. Names that begin with a dot are skipped:
    operating systems leave hidden files next to images, often with the suffix ``.jpg``.
    """
    found: list[str] = []
    others: collections.Counter[str] = collections.Counter()
    folder = root / below if below else root
    if not folder.is_dir():
        refuse_beton(str(root))
        raise ConfigError(
            f'the dataset folder {folder} {"is not a folder" if folder.exists() else "does not exist"}{_alike(root)}',
            'Give the folder that holds the images, relative to where the command is started: data_root=FOLDER (root of the '
            'dataset).',
        )
    try:
        if isinstance(folder, RemotePath):
            _sort_out(folder.names(), found, others)
        else:
            _walk(str(folder), below, (), found, others)
    except OSError as error:
        raise ConfigError(f'the folder {error.filename} cannot be listed: {error.strerror}', 'See its permissions.') from error
    if not found:
        refuse_beton(str(folder))
        there = ', '.join(f'{count} x {kind}' for kind, count in others.most_common(6)) or 'nothing'
        raise ConfigError(
            f'the dataset folder {folder} holds no image ({" ".join(SUFFIXES)}, in any case), only: {there}',
            'Set root to the folder that holds the images, or convert them to one of these formats.',
        )
    found.sort()
    try:
        '\n'.join(found).encode()
    except UnicodeEncodeError as error:
        path = error.object[: error.start].count('\n')
        raise ConfigError(
            f'the file name {found[path]!r} in {root} is not UTF-8, and names are the ids of samples', 'Rename the file.'
        ) from error
    return found


def _alike(root: Path) -> str:
    """The folder of a similar name, for a root that does not exist."""
    if root.exists() or not root.parent.is_dir():
        return ''
    return nearest(str(root), (str(entry) for entry in root.parent.iterdir() if entry.is_dir()))


def _walk(
    folder: str, prefix: str, above: tuple[tuple[int, int], ...], found: list[str], others: collections.Counter[str]
) -> None:
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f'{prefix}/{entry.name}' if prefix else entry.name
            if is_hidden(entry.name):
                others['hidden'] += 1
            elif entry.is_dir():
                others['folder'] += 1
                _walk(entry.path, name, (*above, here), found, others)
            elif entry.name.lower().endswith(SUFFIXES):
                if not entry.is_file() and os.path.exists(entry.path):  # a link to nothing is a bad image, when it is read
                    raise ConfigError(
                        f'{entry.path} is named like an image, and is a pipe, socket or device', 'Move it out of the dataset.'
                    )
                found.append(name)
            else:
                others[os.path.splitext(entry.name)[1] or 'no suffix'] += 1


def _sort_out(names: Iterable[str], found: list[str], others: collections.Counter[str]) -> None:
    """``_walk`` for files that are listed already."""
    for name in names:
        if any(map(is_hidden, name.split('/'))):
            others['hidden'] += 1
        elif name.lower().endswith(SUFFIXES):
            found.append(name)
        else:
            others[os.path.splitext(name)[1] or 'no suffix'] += 1


def is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to the operating system by its name."""
    return name.startswith('.') or name in SYSTEM_FOLDERS


def folders_in(folder: Path) -> list[str]:
    """Names of the folders directly in ``folder``, without hidden ones, sorted."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if not is_hidden(entry.name) and entry.is_dir())


def what_is_in(folder: Path) -> str:
    """For messages: the names directly in ``folder``, as a shortened list."""
    return listing(entry.name for entry in folder.iterdir()) or 'nothing'
