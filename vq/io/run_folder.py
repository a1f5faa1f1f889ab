"""Starting a NAME over: what an earlier run wrote is deleted or set aside, and nothing else in its folder is touched.

Deleted: intact checkpoints, evaluations, pictures, tokens. Set aside in ``NAME/old_<time>/``: damaged checkpoints,
``log.jsonl``, and TensorBoard's event files. Everything is recognised by the names that a run gives it, so a folder of the
user among them stays.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from vq.core.errors import UserError
from vq.core.reading import read_json
from vq.io import atomic, history, manifest

LOG = 'log.jsonl'
EVENTS = 'tensorboard'  # folder of event files
_STEP = re.compile(r'iter_\d+')
_PICTURE = re.compile(r'iter_\d+_.*\.png')
_MEASURED = re.compile(r'iter_\d+|given')  # folders of ``vq.val``
_TOKENS = ('tokens/train/tokens', 'tokens/train', 'tokens')


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'the folder {folder} cannot be made: {error.strerror}', 'Choose another place with --work-dir.'
        ) from error


def has_run(folder: Path) -> bool:
    """Whether a training has written into the folder, or is writing."""
    place = folder / 'checkpoints'
    return (folder / LOG).exists() or bool(history.list_complete(place) or history.list_damaged(place))


def start_over(folder: Path) -> Path | None:
    """Make room for a new run. Returns the folder where things were set aside, if there were any."""
    room = aside_of(folder)
    damaged = [path for path, _ in history.list_damaged(folder / 'checkpoints')]
    set_aside(damaged, room)
    set_logs_aside(folder, room)
    for path in [*written_by_a_run(folder)]:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        elif _STEP.fullmatch(path.name) and path.parent.name == 'checkpoints':
            atomic.remove_folder(path)
        else:
            shutil.rmtree(path)
    for name in (*_TOKENS, 'checkpoints', 'eval', 'val', 'pictures', 'backends'):
        if (folder / name).is_dir() and not (folder / name).is_symlink() and not any((folder / name).iterdir()):
            (folder / name).rmdir()
    return room if room.is_dir() else None


def aside_of(folder: Path) -> Path:
    """A new name in the run's folder for what is set aside now."""
    stamp, count = time.strftime('%Y-%m-%d_%H-%M-%S'), 1
    while os.path.lexists(room := folder / f'old_{stamp}{"" if count == 1 else f"_{count}"}'):
        count += 1
    return room


def set_aside(paths: list[Path], room: Path) -> None:
    """Move files and folders of a run into ``room``; those that do not exist are skipped."""
    for path in paths:
        if os.path.lexists(path):
            room.mkdir(parents=True, exist_ok=True)
            atomic.move(path, room / path.name)


def set_logs_aside(folder: Path, room: Path) -> None:
    """Move ``log.jsonl`` and the event files of TensorBoard, which would show the old run beside the new one."""
    set_aside([folder / LOG], room)
    events = [path for path in _entries(folder / EVENTS) if path.name.startswith('events.out.tfevents.')]
    set_aside(events, room / EVENTS)
    if events and not any((folder / EVENTS).iterdir()):
        (folder / EVENTS).rmdir()


def written_by_a_run(folder: Path) -> Iterator[Path]:
    """What ``start_over`` deletes."""
    yield from (path for _, path in history.list_complete(folder / 'checkpoints'))
    yield from _present(folder / 'checkpoints' / history.LATEST)
    yield from (path for path in _entries(folder / 'eval') if _STEP.fullmatch(path.name))
    yield from (path for path in _entries(folder / 'pictures') if _PICTURE.fullmatch(path.name))
    yield from _entries(folder / 'backends')  # of mmengine's back ends
    measured = [path for path in _entries(folder / 'val') if _MEASURED.fullmatch(path.name) and path.is_dir()]
    yield from measured
    if measured:
        yield from (path for path in _entries(folder / 'val') if path.name == 'log.txt' or _is_config(path))
    for tokens in _TOKENS:
        if (folder / tokens / manifest.NAME).is_file():
            yield folder / tokens / manifest.NAME
            yield from (path for path in _entries(folder / tokens) if manifest.is_shard_name(path.name))


def _entries(folder: Path) -> list[Path]:
    """The content of a folder; nothing if it is missing, or a link to another place."""
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _present(path: Path) -> list[Path]:
    return [path] if path.exists() else []


def _is_config(path: Path) -> bool:
    """Whether a file is a composed config, which commands write into their folders."""
    try:
        return path.suffix == '.json' and {'trainer', 'validator'} & set(read_json(path)) != set()
    except (OSError, ValueError, TypeError):
        return False
