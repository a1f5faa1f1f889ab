"""Two trainings never share a NAME; the lock of a killed one is taken over; readers work beside a training."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runners.support import REPOSITORY, everything_in, said_by
from vq.cli import test, train, val
from vq.core.errors import UserError
from vq.io import run_lock

HOLD = """
import sys, time
from pathlib import Path
from vq.io import run_lock
with run_lock.held(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None) as said:
    print('held', *said, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Another process that holds the lock of a folder until its input is closed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, '-c', HOLD, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': str(REPOSITORY)},
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline().startswith('held')
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def record(folder: Path, **changes: Any) -> Path:
    """A lock that a process of this host left, which has ended, with some of its content changed."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {**run_lock._own(None), 'pid': 4_000_000, 'started': 1, **changes}
    (folder / run_lock.FILE).write_text(json.dumps(found))
    return folder / run_lock.FILE


@pytest.mark.slow
def test_one_name_one_process(home: Path, capsys: Any, hold: Any) -> None:
    """A second training is refused and changes nothing, ``--overwrite`` too; val and test work; after kill -9 it goes on."""
    run = home / 'work_dirs/run'
    owner = hold(str(run))
    before = everything_in(home)
    for option in ('--auto-resume', '--overwrite'):
        said = said_by(capsys, train.main, 'run', 'tiny.py', option, code=2)
        assert f'another training holds the run work_dirs/run: process {owner.pid} on {socket.gethostname()}' in said
        assert said.splitlines()[-1] == ('Wait for its end, or choose another NAME. work_dirs/run/lock.json is the lock.')
    assert everything_in(home) == before
    said_by(capsys, val.main, 'run', 'tiny.py')
    said_by(capsys, test.main, 'run', 'tiny.py', '--load-model-from', 'run')
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    said = said_by(capsys, train.main, 'run', 'tiny.py', '--auto-resume', '--config-options', 'iters:5')
    assert f'the lock of process {owner.pid} on ' in said.splitlines()[0] and 'is taken over' in said.splitlines()[0]
    assert not (run / run_lock.FILE).exists()


def test_a_refused_training_leaves_no_folder(home: Path, capsys: Any) -> None:
    said_by(capsys, train.main, 'new/run', 'tiny.py', '--load-from', 'iter_1', code=2)
    assert not (home / 'work_dirs/new').exists()


@pytest.mark.slow
def test_a_launch_holds_its_lock_between_two_attempts(tmp_path: Path, hold: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rank was killed; its launcher, which is the parent of the holder here, lives and will start it again."""
    first = hold(str(tmp_path), 'the launch')
    monkeypatch.setattr(run_lock, 'PATIENCE', 0.2)
    with pytest.raises(UserError, match=f'holds the run .*: process {first.pid}'), run_lock.held(tmp_path, 'the launch'):
        pass  # of the same launch, but still running
    first.kill()
    first.wait()
    with (
        pytest.raises(UserError, match=f'its launcher, process {os.getpid()} on .*, still runs'),
        run_lock.held(tmp_path, None),
    ):
        pass
    monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', '1')
    with pytest.raises(ZeroDivisionError), run_lock.held(tmp_path, 'the launch') as said:  # noqa: PT012
        assert said == []  # a restart enters without a word
        1 / 0  # noqa: B018
    assert (tmp_path / run_lock.FILE).exists()  # for the next restart
    with run_lock.held(tmp_path, 'the launch') as said:
        assert said == []
    assert not (tmp_path / run_lock.FILE).exists()


def test_a_lock_of_an_ended_process_is_taken_over_by_its_start_time(tmp_path: Path) -> None:
    """The process id was given to another process since then. An empty file was left by a kill while it was written."""
    record(tmp_path, pid=os.getpid())
    with run_lock.held(tmp_path, None) as said:
        assert len(said) == 1 and f'the lock of process {os.getpid()}' in said[0]
        with pytest.raises(UserError, match='this process already trains'), run_lock.held(tmp_path, None):
            pass
    (tmp_path / run_lock.FILE).write_text('')
    with run_lock.held(tmp_path, None) as said:
        assert said == []


def test_without_file_locks_the_process_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, '_lock', lambda file: None)
    parent = os.getppid()
    record(tmp_path, pid=parent, started=run_lock._started(parent))
    with pytest.raises(UserError, match=f'process {parent} '), run_lock.held(tmp_path, None):
        pass
    record(tmp_path, pid=parent)
    with run_lock.held(tmp_path, None) as said:
        assert len(said) == 1
    record(tmp_path, processes='pid:[1]')  # of another container of this machine, which cannot be seen from here
    with pytest.raises(UserError, match='another training holds'), run_lock.held(tmp_path, None):
        pass


def test_the_lock_of_another_host_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record(tmp_path, host='one', boot='other', pid=7)
    before = path.read_bytes()
    with (
        pytest.raises(UserError, match=r'another host holds the run .*: process 7 on one') as caught,
        run_lock.held(tmp_path, None),
    ):
        pass
    assert caught.value.exit_code == 2 and path.read_bytes() == before
    assert caught.value.hint == f'Look on one. If that process has ended, delete {path} and repeat the command.'
    record(tmp_path, boot='the boot before')
    with run_lock.held(tmp_path, None) as said:
        assert len(said) == 1
    monkeypatch.setenv('SLURM_JOB_ID', '12')
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    record(tmp_path, host='one', boot='other', job='12', restart=None)
    with run_lock.held(tmp_path, None) as said:  # requeued: SLURM has ended the job there
        assert len(said) == 1
    record(tmp_path, host='one', boot='other', job='12', restart='1')  # another step of the same job
    with pytest.raises(UserError, match='another host'), run_lock.held(tmp_path, None):
        pass
