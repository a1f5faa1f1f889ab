"""``vq web`` as a command: its address, its end, its refusals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runners.support import commands_here
from tests.sources import ROOT
from vq.cli.web import main


def children(parent: int) -> set[int]:
    """Processes whose parent it is; on Linux."""
    found = set()
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = stat.read_text().rpartition(')')[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == parent and fields[0] != 'Z':
            found.add(int(stat.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(('how', 'said'), [(signal.SIGINT, 'ended'), (signal.SIGTERM, '')])
def test_it_ends_with_its_worker(tmp_path: Path, how: int, said: str) -> None:
    """Ctrl+C, which a terminal sends to the whole group, and SIGTERM: no traceback, exit code 0, no process stays."""
    (tmp_path / 'work_dirs').mkdir()
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-m', 'vq.web', '--device', 'cpu']
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    # these tests may run in the background of a shell, which ignores SIGINT, and so would all that they start
    usual = {'start_new_session': True, 'preexec_fn': lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **usual, **pipes) as process:  # type: ignore[call-overload]
        first, second = process.stdout.readline(), process.stdout.readline()
        for _ in range(300):  # a thread of the server starts the worker, beside these lines
            if workers := children(process.pid):
                break
            time.sleep(0.1)
        os.killpg(process.pid, how)
        try:
            out, errors = process.communicate(timeout=30)
        finally:
            process.kill()  # leaving this block waits for its end
    assert first.startswith('the page of work_dirs: http://127.0.0.1:') and 'Ctrl+C' in second
    assert (process.returncode, out.strip(), errors) == (0, said, '')
    assert len(workers) == 1 and not any(Path(f'/proc/{worker}').exists() for worker in workers)


def test_what_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with commands_here(dry=False):
        assert main([]) == 2 and 'there is no folder work_dirs' in capsys.readouterr().err
        (tmp_path / 'work_dirs').mkdir()
        assert main(['--port', '70000']) == 2 and '--port is 70000' in capsys.readouterr().err
        with socket.create_server(('127.0.0.1', 0)) as taken:
            port = str(taken.getsockname()[1])
            assert main(['--port', port]) == 2
        assert f'port {port} cannot be taken' in capsys.readouterr().err
        assert main(['--trust']) == 2 and '--trust' in capsys.readouterr().err, 'it opens no run with trust'
