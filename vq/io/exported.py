"""What exports of shards to the files of other programs share: a manifest with the producer, files that are written once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vq.core.errors import RunFailure, UserError, listing
from vq.core.reading import read_json
from vq.io import atomic
from vq.io.manifest import LARGEST, NAME, first_difference


def is_exported(root: Path, producer: dict[str, Any], what: str) -> bool:
    """Whether ``root`` holds a complete export. An export of another producer is an error. ``what``: codes, latents."""
    try:
        found = read_json(root / NAME, LARGEST)['producer']
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{root / NAME} cannot be read: {error}', 'Delete the folder and write it again.') from error
    field = first_difference(producer, found)
    if field is not None:
        raise UserError(
            f"{root} holds {what} of another tokenizer or of other images: '{field}' differs",
            'Write into another folder (give the run another NAME), or delete that folder.',
        )
    return True


def write_missing(path: Path, data: bytes) -> bool:
    """Write a file unless it exists. Returns whether it was written.

    A file of the right size is complete: writes are atomic, and all files of a folder have the same layout.
    """
    if path.is_file() and path.stat().st_size == len(data):
        return False
    atomic.write_bytes(path, data)
    return True


def check_files(folder: Path, wanted: set[str]) -> None:
    """After all ranks have written: raise unless ``folder`` holds these files and no others, besides the manifest."""
    atomic.sweep(folder)
    there = {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()} - {NAME}
    if there != wanted:
        raise RunFailure(
            f'{folder}: {len(wanted - there)} files are missing and {len(there - wanted)} do not belong there '
            f'({listing(sorted(wanted ^ there)[:5])})',
            'Remove what does not belong there, and run the same command again: it writes what is missing.',
        )
