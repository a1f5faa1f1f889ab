"""The ranks of one machine: starting them, seeing the first that fails, stopping them.

A rank that fails leaves its message in a file, so that the launcher can say it again, last, and exit with its code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

VARIABLE = 'VQ_FIRST_ERROR'  # the file, in the environment of the ranks


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why an attempt ended."""

    message: str
    hint: str
    code: int = 1
    stopped: bool = False  # it was asked to stop, and is no failure
    killed: bool = False  # by a signal, from outside or in native code

    @property
    def final(self) -> bool:
        """Whether starting again would only repeat it: bad usage stays bad usage."""
        return self.stopped or self.code == 2


def leave(message: str, hint: str, code: int, stopped: bool = False) -> None:
    """A rank's message, unless another rank was first."""
    target = os.environ.get(VARIABLE)
    if not target:
        return
    said = {'message': message, 'hint': hint, 'code': code, 'stopped': stopped, 'rank': os.environ.get('RANK')}
    try:
        with open(target, 'x') as file:
            json.dump(said, file)
    except FileExistsError:
        return


class Ranks:
    """The processes of one attempt. Each leads a process group of its own, which its loader's workers belong to."""

    def __init__(self, command: Sequence[str], environments: Sequence[Mapping[str, str]], first_error: Path) -> None:
        self.first_error = first_error
        self.processes: dict[int, subprocess.Popen[bytes]] = {}  # by rank
        end_with_parent = dying_with_parent()
        for variables in environments:
            self.processes[int(variables['RANK'])] = subprocess.Popen(
                list(command),
                env={**variables, VARIABLE: str(first_error)},
                start_new_session=True,
                preexec_fn=end_with_parent,  # this process has no other threads
            )

    def signal(self, number: int) -> None:
        for process in self.processes.values():
            process.send_signal(number)  # nothing happens to one that has ended

    def codes(self) -> dict[int, int | None]:
        return {rank: process.poll() for rank, process in self.processes.items()}

    def done(self) -> bool:
        return all(code == 0 for code in self.codes().values())

    def ended(self) -> bool:
        return all(code is not None for code in self.codes().values())

    def failure(self) -> Failure | None:
        """The first failure, if there is one. A rank that was killed goes before those that noticed it."""
        failed = {rank: code for rank, code in self.codes().items() if code}
        if not failed:
            return None
        said = self._message()
        killed = min((rank for rank, code in failed.items() if code < 0), default=None)
        if killed is not None and (said is None or (said['rank'] != str(killed) and not said['stopped'])):
            return killed_by(killed, -failed[killed])
        if said is not None:
            return Failure(said['message'], said['hint'], int(said['code']), bool(said['stopped']))
        rank, code = min(failed.items())
        return Failure(f'rank {rank} ended with exit code {code}', 'What it said stands above.', 2 if code == 2 else 1)

    def _message(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self.first_error.read_text())
        except (OSError, ValueError):  # none, or not yet whole
            return None
        return found

    def stop(self, seconds: float, gently: bool, hurry: Callable[[], bool] = lambda: False) -> None:
        """End all of them: by themselves, or asked by SIGTERM, or after ``seconds`` by SIGKILL with their workers."""
        if not gently:
            self.signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while not self.ended() and time.monotonic() < deadline and not hurry():
            time.sleep(0.02)
        for process in self.processes.values():
            if process.poll() == 0:
                continue  # what it has left running may be meant to
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody of the group is left
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes.values():
            process.wait()


def killed_by(rank: int, number: int) -> Failure:
    hint = 'It crashed in native code: what it said stands above.'
    if number == signal.SIGKILL:
        hint = 'Memory that ran out is the usual cause (see dmesg); go on with the same command and --auto-resume.'
    elif number in (signal.SIGTERM, signal.SIGINT):
        hint = 'Go on with the same command and --auto-resume.'
    name = signal.Signals(number).name if number in set(signal.Signals) else f'signal {number}'
    return Failure(f'rank {rank} was killed by {name}', hint, killed=True)


def dying_with_parent() -> Callable[[], None] | None:
    """What a child runs first, so that a launcher that is killed takes its ranks with it. Linux only."""
    if sys.platform != 'linux':
        return None
    import ctypes

    call = ctypes.CDLL(None).prctl
    death_signal, number = 1, int(signal.SIGTERM)
    return lambda: call(death_signal, number)
