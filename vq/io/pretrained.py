"""Where pretrained files lie, and what to say when one does not."""

from __future__ import annotations

import os
from pathlib import Path

from vq.core.errors import UserError
from vq.io.published import catalog


def pretrained_root() -> Path:
    """The folder of downloaded files: ``pretrained`` in the working directory, or what VQ_PRETRAINED names."""
    return Path(os.environ.get('VQ_PRETRAINED') or 'pretrained')


def pretrained_file(path: str | Path) -> Path:
    """The file at ``path``, below the folder of pretrained files unless absolute. A missing one is an error that says how to get it."""
    file = pretrained_root() / path
    if file.is_file():
        return file
    owner = catalog.owner_of(str(path))
    if owner is None:
        raise UserError(f'the pretrained file {file} is missing', 'Put it there, or give its path in the config.')
    source = next(remote.source for remote in owner.files if remote.path == str(path))
    raise UserError(
        f'the pretrained file {file} is missing ({owner.about}; {source})',
        f'Fetch it: python tools/prepare_checkpoints.py {owner.name}',
    )
