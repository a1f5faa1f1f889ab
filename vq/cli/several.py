"""Several processes as one command: signals go in, one error message and one exit code come out.

torchrun ends every failure with exit code 1 and its own report. Ranks therefore leave their message in a file, and
the launcher says the first of them again, last, and exits with its code.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

VARIABLE = 'VQ_FIRST_ERROR'  # the file, in the environment of the ranks


def leave(message: str, hint: str, code: int) -> None:
    """A rank's message, unless another rank was first."""
    target = os.environ.get(VARIABLE)
    if not target:
        return
    try:
        with open(target, 'x') as file:
            json.dump({'message': message, 'hint': hint, 'code': code}, file)
    except FileExistsError:
        return


def run(command: Sequence[str]) -> int:
    """Start torchrun and wait for it. A signal to this process is one to all of them: SIGUSR1, which torchrun does not
    know, is handed on as SIGTERM.
    """
    with tempfile.TemporaryDirectory(prefix='vq-') as folder:
        first = Path(folder) / 'error.json'
        child = subprocess.Popen([sys.executable, *command], env={**os.environ, VARIABLE: str(first)}, start_new_session=True)

        def hand_on(number: int, frame: FrameType | None) -> None:
            child.send_signal(signal.SIGTERM if number == signal.SIGUSR1 else number)

        previous = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
        try:
            code = child.wait()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        if code == 0 or not first.exists():
            return 0 if code == 0 else 1
        said = json.loads(first.read_text())
        print(f'error: {said["message"]}', *([said['hint']] if said['hint'] else []), sep='\n', file=sys.stderr, flush=True)
        return int(said['code'])
