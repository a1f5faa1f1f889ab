"""Workers of a loader end with a main process that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.snippets import ROOT, environment


@pytest.mark.slow
def test_workers_die_with_a_killed_main_process():
    script = (
        'import os, signal, sys\nfrom tests.data.test_loading import endless\nimport multiprocessing as m\n'
        'loader = endless(2)\nnext(loader)\nprint(*[child.pid for child in m.active_children()], flush=True)\n'
        'os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    assert len(ended_workers(script)) == 2


@pytest.mark.slow
def test_a_worker_whose_main_process_died_before_it_was_ready_ends_too():
    script = (
        'import os, signal, time\nimport multiprocessing as m\nfrom vq.data.workers import prepare_worker\n'
        'def work():\n    time.sleep(0.5)\n    prepare_worker(0)\n    time.sleep(600)\n'
        "worker = m.get_context('fork').Process(target=work)\nworker.start()\nprint(worker.pid, flush=True)\n"
        'os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    assert len(ended_workers(script)) == 1


def ended_workers(script: str) -> list[int]:
    """The workers that a script prints before it kills itself. They must end soon; nobody is left to wait for them."""
    started = subprocess.Popen([sys.executable, '-c', script], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
    with started as run:
        assert run.stdout is not None
        workers = [int(word) for word in run.stdout.readline().split()]  # to its end, the output waits for the workers
        assert run.wait(60) == -signal.SIGKILL
        deadline = time.monotonic() + 20
        try:
            while any(map(is_alive, workers)):
                assert time.monotonic() < deadline, 'a worker lives on'
                time.sleep(0.1)
        finally:
            for worker in filter(is_alive, workers):
                os.kill(worker, signal.SIGKILL)
    return workers


def is_alive(process: int) -> bool:
    """Not gone, and not a zombie that nobody has waited for."""
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False
