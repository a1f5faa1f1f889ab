"""Workers of a loader end when its program ends without closing the loader."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, random, sys
import numpy as np
from multiprocessing import active_children
from vq.data.loading import Loader, LoaderSettings
from vq.data.plan import training_plan
from vq.interfaces import Dataset, Sample

class Black(Dataset):
    def __len__(self): return 9
    def load(self, index, stream): return Sample(image=np.zeros((2, 2, 3), np.uint8), id=str(index))

loader = Loader(Black(), training_plan(9, 4, 0, 1, 0), LoaderSettings(4, num_workers=2), 0, training=True)
next(loader)
print(*(worker.pid for worker in active_children()), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(('end', 'code'), [('', 0), ('raise ValueError', 1), ('os.kill(os.getpid(), 9)', -9)])
def test_a_program_ends_though_its_loader_was_never_closed(end, code):
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM + end],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == code
    assert end == 'raise ValueError' or not done.stderr
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    patience = time.monotonic() + 30  # after kill -9, workers end when they next check their parent
    while any(map(alive, pids)) and time.monotonic() < patience:
        time.sleep(0.2)
    assert not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'  # a zombie has ended
    except FileNotFoundError:
        return False
