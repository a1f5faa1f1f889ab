"""Tell a restart of a launch from its first start: a restart must resume the run, not begin it again.

The first process claims the run's folder, then writes the id of the launch into it. A later start that finds the id of its
launch there resumes from the newest checkpoint. The options of the command line for the first start (``--overwrite``,
``--load-from``, or none) no longer apply.

TORCHELASTIC_RESTART_COUNT cannot tell a restart. Each agent of torchrun counts on its own, so the count on node 0 stays 0
when a rank of node 1 dies, and ``--overwrite`` would delete the files that the launch has written.
"""

from __future__ import annotations

import datetime
import os
import uuid
from pathlib import Path

from vq.core.reading import read_bytes
from vq.io import atomic, history

FILE = 'launch.txt'
KEY = 'vq/launch'
WAIT = datetime.timedelta(seconds=60)


def find_launch() -> str | None:
    """The id of this process's launch, the same for all attempts and nodes; None without an elastic agent.

    The agents share a TCP store, in which the first process to call this puts a random id. If the agents do not share it
    (TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1), the id is torchrun's ``--rdzv-id`` alone.
    """
    run = os.environ.get('TORCHELASTIC_RUN_ID')
    if run is None or os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        return run
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    address, port = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    store = TCPStore(address, port, is_master=False, timeout=WAIT, wait_for_workers=False)
    return f'{run} {store.compare_set(KEY, "", uuid.uuid4().hex).decode()}'


def has_begun(folder: Path, launch: str | None) -> bool:
    """Whether an earlier start of this launch has claimed the run's folder."""
    if launch is None:
        return False
    try:
        return read_bytes(folder / FILE).decode().strip() == launch
    except (OSError, ValueError):  # the earlier start died before claiming the folder, or there was none
        return False


def note(folder: Path, launch: str | None, load_from: str | None) -> None:
    """Write the id of the launch into the run's folder. With ``--load-from``, that checkpoint becomes the latest.

    The pointer to the latest checkpoint moves first. A slower rank can find the id in the folder, take this start for a
    restart and resume from the latest checkpoint, which must then be the one of ``--load-from``.
    """
    if launch is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if load_from is not None and history.is_complete(folder / 'checkpoints' / Path(load_from).name):
        atomic.write_text(folder / 'checkpoints' / history.LATEST, f'{Path(load_from).name}\n')
    atomic.write_text(folder / FILE, f'{launch}\n')
