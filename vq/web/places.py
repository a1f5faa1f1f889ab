"""Which names the page may use: runs below the folder of all runs, and published tokenizers that are converted already.

Works without torch. Server and worker both ask here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vq.core import run_names
from vq.core.environment import dry_run
from vq.core.errors import UserError, listing, nearest
from vq.io.pretrained import pretrained_root
from vq.io.published import catalog
from vq.io.run_list import find_runs

PUBLISHED = 'published:'  # before the name of a published tokenizer


def run_folders(root: Path) -> dict[str, Path]:
    """Name -> folder of each run; dry runs only in a dry run."""
    found = {folder.relative_to(root).as_posix(): folder for folder in find_runs(root)}
    return {name: folder for name, folder in found.items() if dry_run() or not name.startswith('dry_run/')}


def published() -> dict[str, Path]:
    """Name, with its mark -> converted file of each published tokenizer that is here."""
    known = {f'{PUBLISHED}{entry.name}': pretrained_root() / entry.converted for entry in catalog.CATALOG if entry.kind}
    return {name: file for name, file in known.items() if file.is_file()}


def place_of(name: Any, root: Path) -> Path:
    """The folder of a run, or the file of a published tokenizer. An error for all other paths."""
    if not isinstance(name, str):
        raise UserError(f'the name of a run is {name!r:.60}', 'Choose one of the list.')
    if name.startswith(PUBLISHED):
        files = published()
        if name not in files:
            raise UserError(f"there is no converted '{name.removeprefix(PUBLISHED)}'", 'vq fetch gets and converts it.')
        return files[name]
    folders = run_folders(root)
    known = run_names.checked(name)
    if known not in folders:
        raise UserError(f"there is no run '{known}' in {root}{nearest(known, folders)}", f'Its runs: {listing(folders)}.')
    return folders[known]


def picture_of(name: Any, file: Any, root: Path) -> Path:
    """A PNG file in the folder of a run, or of its samples. An error for all other paths."""
    folder = place_of(name, root).resolve()
    places = [folder, folder.with_name(f'{folder.name}_sample')]
    wanted = [(place, (place / str(file)).resolve()) for place in places] if isinstance(file, str) and '\0' not in file else []
    for place, path in wanted:
        if path.suffix == '.png' and path.is_relative_to(place) and path.is_file():
            return path
    raise UserError(f"the run '{name}' has no picture {file!r:.80}", 'Load the list of runs again.')


def fingerprint(root: Path) -> Mapping[str, float]:
    """What changes when there are other runs, or other checkpoints of a run."""
    marks = {name: folder / 'checkpoints' for name, folder in run_folders(root).items()} | published()
    return {name: _changed(path) for name, path in marks.items()}


def _changed(path: Path) -> float:
    times = [0.0]
    for file in (path, path / 'latest'):
        try:
            times.append(file.stat().st_mtime)
        except OSError:  # not there, or gone meanwhile
            continue
    return max(times)
