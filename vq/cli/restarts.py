"""A launch that starts its ranks again must not begin its run again.

The first process writes the launch into the run's folder once the folder is its own. A later start that finds its launch
there goes on from the newest checkpoint, whatever the command line said for the first one: ``--overwrite``,
``--load-from``, or nothing.

Whether a start is a later one is not read from TORCHELASTIC_RESTART_COUNT. torchrun's agents count each on their own, so
the count on node 0 stays 0 when a rank of node 1 dies, and ``--overwrite`` would delete what the launch has written.
"""

from __future__ import annotations

import datetime
import os
import uuid
from pathlib import Path

from vq.io import atomic, history

FILE = 'launch.txt'
KEY = 'vq/launch'
WAIT = datetime.timedelta(seconds=60)


def find_launch() -> str | None:
    """The launch of this process, the same for all its attempts and nodes; None without an elastic agent.

    The agents serve a store in which the first process that asks leaves an id. Where they keep the store to themselves
    (TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1), the launch is known by torchrun's ``--rdzv-id`` alone.
    """
    run = os.environ.get('TORCHELASTIC_RUN_ID')
    if run is None or os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        return run
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    address, port = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    store = TCPStore(address, port, is_master=False, timeout=WAIT, wait_for_workers=False)
    return f'{run} {store.compare_set(KEY, "", uuid.uuid4().hex).decode()}'


def has_begun(folder: Path, launch: str | None) -> bool:
    """Whether an earlier start of this launch has got as far as making the run its own."""
    if launch is None:
        return False
    try:
        return (folder / FILE).read_text().strip() == launch
    except OSError:  # the earlier start died before that, or there was none
        return False


def note(folder: Path, launch: str | None, load_from: str | None) -> None:
    """The run is this launch's now. ``--load-from`` makes the newest checkpoint the one that a restart goes on from.

    That pointer moves first: a rank that is slower than this one may find the launch in the folder already, and must then
    go on from the same checkpoint as if it had not.
    """
    if launch is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if load_from is not None and history.is_complete(folder / 'checkpoints' / Path(load_from).name):
        atomic.write_text(folder / 'checkpoints' / history.LATEST, f'{Path(load_from).name}\n')
    atomic.write_text(folder / FILE, f'{launch}\n')
