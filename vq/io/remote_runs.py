"""Runs, checkpoints and weights at an address: what of them is needed is copied into the cache of remote files.

A file is copied alone. Of a folder all files are copied, but of a run only its newest checkpoint. The address of a folder on
a web server needs ``index.txt``, as datasets do. Nothing is written to an address: runs are trained in local folders.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from vq.core.errors import UserError
from vq.io import remote
from vq.io.stores import Stat

_STEP = re.compile(r'(?:(?:.*/)?checkpoints/|)iter_([0-9]{1,18})/')
LARGEST = 2**37  # bytes that are copied for one name


def local_copy(url: str) -> Path:
    """The path of the copy: of a file, or of a folder that ``runs.find`` opens as the one at the address."""
    found = _copied(url)
    return found if found.exists() else _copied_again(url)


def _copied_again(url: str) -> Path:
    """The cache has deleted it."""
    _copied.cache_clear()
    return _copied(url)


@functools.lru_cache(64)
def _copied(url: str) -> Path:
    """One process takes one version: the listing is made once."""
    folder, _, file = url.rpartition('/')
    if file and re.fullmatch(r'iter_[0-9]{1,18}', folder.rpartition('/')[2]):  # weights of a checkpoint, with its config
        return _copied(folder) / file
    try:
        known = remote.stat(url)
    except FileNotFoundError:
        known = None
    if known is not None and known.size > 0 and not url.endswith('/'):
        return remote.local_file(url, known)
    files = newest(dict(remote.walk(url)))
    if not files:
        raise UserError(
            f'there is no file and no folder {url}', 'Give the address of weights, of a checkpoint iter_N or of a run.'
        )
    size = sum(known.size for known in files.values())
    if size > LARGEST:
        raise UserError(f'{url} holds {size / 1e9:.0f} GB', 'Give the address of one checkpoint iter_N.')
    parts = url.partition('?')[0].rstrip('/').rsplit('/', 2)[-2:]
    inside = '/'.join(part for part in parts if part)  # iter_N is opened by its name, and by that of its parent
    wanted = {f'{inside}/{name}': (remote.below(url, name), _sized(url, name, known)) for name, known in files.items()}
    return remote.local_files(wanted, url) / inside


def newest(files: dict[str, Stat]) -> dict[str, Stat]:
    """The files without those of older checkpoints."""
    steps = {name: int(match[1]) for name in files if (match := _STEP.match(name))}
    complete = [step for name, step in steps.items() if name.endswith('/COMPLETE')] or list(steps.values())
    last = max(complete, default=0)
    return {name: known for name, known in files.items() if steps.get(name, last) == last}


def _sized(url: str, name: str, known: Stat) -> Stat:
    return known if known.size >= 0 and known.version else remote.stat(remote.below(url, name))
