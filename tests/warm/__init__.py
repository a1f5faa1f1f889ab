"""Commands that start warm: in a fork of a process that has imported torch already.

That import is half of the time of a small command. ``WarmStart`` keeps one process that has imported torch, but no module of
vq. It writes programs ``auto_torchrun``, ``python`` and ``vq`` to put first on a shell's PATH. A command given to them runs in
a fork of that process, with their arguments, folder, environment, streams and signals, and they end with its exit code.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

HERE = Path(__file__).parent
NAMES = ('auto_torchrun', 'python', 'vq')
SECONDS = 120.0  # for the imports, on a machine with other work


class WarmStart:
    """``folder`` has the programs. Their process ends with the context, or with the process that opened it."""

    def __enter__(self) -> WarmStart:
        self._room = tempfile.TemporaryDirectory(prefix='vq-warm-')
        self.folder = Path(self._room.name)
        door = self.folder / 'door'
        for name in NAMES:
            program = self.folder / name
            words = shlex.join([sys.executable, '-IS', str(HERE / 'client.py'), str(door), name])
            program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            program.chmod(0o755)
        self._server = subprocess.Popen([sys.executable, HERE / 'server.py', door], stdin=subprocess.PIPE)
        deadline = time.monotonic() + SECONDS
        while not self._answers(door):
            if self._server.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f'the process that commands start from did not begin (exit code {self._server.poll()})')
            time.sleep(0.05)
        return self

    @staticmethod
    def _answers(door: Path) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(os.fspath(door)) == 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()  # at which it ends
        self._server.wait()
        self._room.cleanup()
