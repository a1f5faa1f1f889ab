"""Commands that start warm: in a fork of a process that has imported torch already.

That import is half of the time of a small command, and importing vq a third of the rest. ``WarmStart`` keeps one process that
has imported torch, but no module of vq unless ``modules`` names some. It writes programs ``auto_torchrun``, ``python`` and
``vq`` to put first on a shell's PATH. A command given to them runs in a fork of that process, with their arguments, folder,
environment, streams and signals, and they end with its exit code. A program that is killed takes its fork with it. Options of
the interpreter besides ``-u``, ``-P``, ``-m`` and ``-c`` start a cold one.

``programs`` starts one such process for all workers of pytest-xdist. It lives as long as one of them has its pipe open.

A fork has another parent and process group than a cold command, and no other file descriptors than the three streams.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import importlib.util
import os
import pkgutil
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import vq
from tests.once import locked

HERE = Path(__file__).parent
_OPEN = contextlib.ExitStack()
CLIP = 'transformers.models.clip.modeling_clip'  # which the teachers import
NAMES = ('auto_torchrun', 'python', 'vq')
LOCK = Path(tempfile.gettempdir()) / f'vq-warm-{os.getuid()}.lock'
SECONDS = 120.0  # for the imports, on a machine with other work


@functools.cache
def programs() -> Path:
    """The folder with the programs of one process, which lives as long as the workers that asked, and has imported vq too."""
    atexit.register(_OPEN.close)
    session = os.environ.get('PYTEST_XDIST_TESTRUNUID')
    if session is None:
        return _OPEN.enter_context(WarmStart(modules())).folder
    session = hashlib.sha256(f'{session} {HERE}'.encode()).hexdigest()[:16]  # tests of another tree may run below these
    folder = Path(tempfile.gettempdir()) / f'vq-warm-{session}'
    return _OPEN.enter_context(WarmStart(modules(), folder)).folder


def modules() -> list[str]:
    """All of vq except what is run as a program, the package of the digits, and the slowest import of the teachers."""
    names = [module.name for module in pkgutil.walk_packages(vq.__path__, 'vq.') if module.name.count('.') > 1]
    run = ('vq.demo', 'vq.launch', 'vq.tools', 'vq.tasks.image_tokenization.tokenize')
    others = ['sklearn.datasets', *([CLIP] if importlib.util.find_spec('transformers') else [])]
    return [*(name for name in names if not name.startswith(run)), *others]


class WarmStart:
    """``folder`` has the programs. Their process ends with the context, or with the process that opened it.

    Contexts with the same ``folder``, in any processes, share one process of programs, which ends with the last of them.
    """

    def __init__(self, modules: Sequence[str] = (), folder: Path | None = None) -> None:
        self._modules, self._is_shared = modules, folder is not None
        self.folder = folder or Path(tempfile.mkdtemp(prefix='vq-warm-'))
        self._door, self._life = self.folder / 'door', self.folder / 'life'
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> WarmStart:
        with locked(LOCK):
            held = self._joined()
            self._held = self._begun() if held is None else held
        return self

    def _joined(self) -> int | None:
        """The writing end of the pipe that a living process listens to."""
        try:
            held = os.open(self._life, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # there is no pipe, or no reader
            return None
        if self._answers():
            return held
        os.close(held)
        return None

    def _begun(self) -> int:
        """Start the process. It ends when nobody has the writing end open, which is returned."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        for left in (self._door, self._life):
            left.unlink(missing_ok=True)
        for name in NAMES:
            program = self.folder / name
            words = shlex.join([sys.executable, '-IS', str(HERE / 'client.py'), str(self._door), name])
            program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            program.chmod(0o755)
        os.mkfifo(self._life)
        reading = os.open(self._life, os.O_RDONLY | os.O_NONBLOCK)
        held = os.open(self._life, os.O_WRONLY)
        words = [sys.executable, HERE / 'server.py', self._door, LOCK, *self._modules]
        found = os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get('PYTHONPATH')]))  # this vq, not another
        told = {**os.environ, 'PYTHONPATH': found} if self._modules else None
        self._server = subprocess.Popen(words, env=told, stdin=reading)
        os.close(reading)
        deadline = time.monotonic() + SECONDS
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > deadline:
                self._server.kill()
                code = self._server.wait()
                os.close(held)
                raise RuntimeError(f'the process that commands start from did not begin (exit code {code})')
            time.sleep(0.05)
        return held

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(os.fspath(self._door)) == 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._held)
        if self._server is not None and not self._is_shared:
            self._server.wait()
