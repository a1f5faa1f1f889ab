"""Launchers of tests: ``auto_torchrun`` around small scripts that stand for ranks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.runners.support import REPOSITORY

HEAD = """
import json, os, pathlib, signal, sys, time
from vq.cli.errors import leave
rank, attempt = int(os.environ['RANK']), int(os.environ['TORCHELASTIC_RESTART_COUNT'])
pathlib.Path(f'starting_{rank}_{attempt}').write_text(str(os.getpid()))
os.rename(f'starting_{rank}_{attempt}', f'started_{rank}_{attempt}')
while not all(pathlib.Path(f'started_{other}_{attempt}').exists() for other in range(int(os.environ['WORLD_SIZE']))):
    time.sleep(0.01)
"""

Launcher = subprocess.Popen[str]


class Launchers:
    """Start launchers in ``folder`` by ``python``, a warm program that has imported torch, or cold for tests that kill it,
    or that look at process groups."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder, self.python = folder, python

    def start(
        self, body: str, *options: str, cold: bool = False, script: Sequence[str] = ('script.py',), before: Sequence[str] = ()
    ) -> Launcher:
        """Start a launcher of ``body``, with two ranks unless the options change that."""
        (self.folder / 'script.py').write_text(HEAD + body)
        options = options if '--nnodes' in options else ('--nproc-per-node', '2', *options)
        environment = {name: value for name, value in os.environ.items() if name not in ('RANK', 'WORLD_SIZE')}
        return subprocess.Popen(
            [*before, sys.executable if cold else self.python, '-m', 'vq.launch.main', *options, *script],
            cwd=self.folder,
            env={**environment, 'PYTHONPATH': str(REPOSITORY)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def node(self, rank: int, port: int, body: str, *options: str, nodes: int = 2, cold: bool = False) -> Launcher:
        place = ['--nnodes', str(nodes), '--node-rank', str(rank), '--master-addr', '127.0.0.1', '--master-port', str(port)]
        return self.start(body, *place, '--nproc-per-node', '1', *options, cold=cold)

    def run(self, body: str, *options: str, cold: bool = False) -> tuple[int, list[str]]:
        """Run a launcher to its end. Returns exit code and lines."""
        return ends(self.start(body, *options, cold=cold))[0]


def ends(*processes: Launcher) -> list[tuple[int, list[str]]]:
    said = [process.communicate(timeout=100)[1] for process in processes]
    return [(process.returncode, lines.splitlines()) for process, lines in zip(processes, said, strict=True)]


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 100
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f'{paths} did not appear'
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(('', 0))
        return int(one.getsockname()[1])
