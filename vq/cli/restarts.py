"""A launch that starts its ranks again must not begin its run again.

``auto_torchrun --max-restarts N`` tells every process which launch it belongs to, and how often that has started, in
torchrun's variables. The first process writes the launch into the run's folder once the folder is its own. A later start
that finds its launch there goes on from the newest checkpoint, whatever the command line said for the first one:
``--overwrite``, ``--load-from``, or nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from vq.io import atomic, history

FILE = 'launch.txt'


def launch() -> str | None:
    """This launch, if its processes may be started again."""
    if int(os.environ.get('TORCHELASTIC_MAX_RESTARTS') or 0) == 0:
        return None
    return os.environ.get('TORCHELASTIC_RUN_ID')


def has_begun(folder: Path) -> bool:
    """Whether an earlier start of this launch has got as far as making the run its own."""
    if launch() is None or int(os.environ.get('TORCHELASTIC_RESTART_COUNT') or 0) == 0:
        return False
    try:
        return (folder / FILE).read_text().strip() == launch()
    except OSError:  # the earlier start died before that
        return False


def note(folder: Path, load_from: str | None) -> None:
    """The run is this launch's now. ``--load-from`` makes the newest checkpoint the one that a restart goes on from."""
    name = launch()
    if name is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if load_from is not None and history.is_complete(folder / 'checkpoints' / Path(load_from).name):
        atomic.write_text(folder / 'checkpoints' / history.LATEST, f'{Path(load_from).name}\n')
    atomic.write_text(folder / FILE, f'{name}\n')
