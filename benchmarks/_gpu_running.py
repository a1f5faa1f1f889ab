"""Run the parts of a benchmark in bounded time, so that a failure of one part does not affect the others.

A worker process runs the parts in order. A part that raises or runs out of time ends its worker, since it may leave the device
unusable; a new worker continues with the next part. The parent detects parts that kill their process or exceed their time. A
part writes its file after every result, so no result is lost. This module does not import torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from _common import rounded

USED_UP = 'the time of the whole was used up'
NOTHING: dict[str, Any] = {'seconds': 0.0, 'cpu_seconds': 0.0, 'rows': [], 'figures': {}, 'notes': []}

STARTUP = 120.0  # seconds for a worker to start a part: imports from a cold disk
GRACE = 8.0  # seconds for a part to end after its time is up
LEAST = 5.0  # with fewer seconds left, no part is started

Status = Literal['running', 'ok', 'failed', 'skipped']
Part = Callable[['Record'], None]


class OutOfTime(BaseException):
    """Raised in a part when its time is up. It is not an Exception, so that no ``except Exception`` catches it."""


@dataclasses.dataclass
class Aim:
    """The target of a row: one of its numbers is at least ``bound``, or with ``most`` at most."""

    number: Literal['figure', 'ratio', 'roof']
    bound: float
    most: bool = False

    def __str__(self) -> str:
        return f'{self.number} {"<=" if self.most else ">="} {self.bound:g}'

    def met(self, row: Mapping[str, Any]) -> bool | None:
        value = row[self.number]
        if value is None:
            return None
        return bool(value <= self.bound if self.most else value >= self.bound)


class Record:
    """Inputs and results of a part. ``until`` is the end of its time, in seconds since the epoch."""

    def __init__(self, path: Path, quick: bool, device: Any, until: float) -> None:
        self.path, self.quick, self.device, self.until = path, quick, device, until
        self.rows: list[dict[str, Any]] = []
        self.figures: dict[str, Any] = {}
        self.notes: list[str] = []
        self.outcome: dict[str, Any] = {'status': 'running'}

    def row(
        self,
        what: str,
        figure: float,
        unit: str,
        *,
        peer: float | None = None,
        ratio: float | None = None,
        roof: float | None = None,
        aim: Aim | None = None,
    ) -> None:
        """Add a row of the table. ``peer`` has the unit of ``figure``; ``ratio``: how many times better ours is than the peer;
        ``roof``: ours as a fraction of the limit.
        """
        numbers = {'figure': figure, 'peer': peer, 'ratio': ratio, 'roof': roof}
        row: dict[str, Any] = {'what': what, 'unit': unit}
        row |= {name: None if value is None else rounded(float(value)) for name, value in numbers.items()}
        # aims are for the full sizes, not for those of --quick
        row |= {'aim': None if aim is None else str(aim), 'met': None if aim is None or self.quick else aim.met(row)}
        self.rows.append(row)
        self.save()

    def keep(self, name: str, value: Any) -> None:
        """Add a figure to the JSON only."""
        self.figures[name] = value
        self.save()

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(f'note: {text}', flush=True)
        self.save()

    def left(self) -> float:
        return self.until - time.time()

    def may(self, what: str, seconds: float, work: Callable[[], None]) -> None:
        """Run an optional piece of work if at least ``seconds`` are left. If it is skipped or given up, a note says why."""
        if self.left() < seconds:
            self.note(f'{what}: left out, for only {self.left():.0f} s were left')
            return
        begun = time.time()
        try:
            with alarm(self.left() - 2):
                work()
        except OutOfTime:
            self.note(f'{what}: given up after {time.time() - begun:.0f} s, at the end of the time of the part')
        finally:
            signal.setitimer(signal.ITIMER_REAL, max(0.1, self.left()))

    def save(self) -> None:
        content = {**self.outcome, 'until': self.until, 'rows': self.rows, 'figures': self.figures, 'notes': self.notes}
        beside = self.path.with_suffix('.new')
        beside.write_text(json.dumps(content))
        beside.replace(self.path)

    def end(self, status: Status, **more: Any) -> None:
        self.outcome = {'status': status, **more}
        self.save()


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the body after ``seconds``. Only one alarm can be set at a time."""

    def ring(*_: object) -> None:
        raise OutOfTime('its time was up')

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.1, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# in the worker


def work(parts: Mapping[str, tuple[Part, float]], folder: Path, quick: bool, device: Any, until: float) -> NoReturn:
    """Run parts (function and time limit in seconds) in order, and end this process after a failed part."""
    code = 0
    for name, (part, seconds) in parts.items():
        print(f'\n== {name}', flush=True)
        if not attempt(part, Record(folder / f'{name}.json', quick, device, min(time.time() + seconds, until))):
            code = 1
            break
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without waiting for threads that a failed part has left behind


def attempt(part: Part, record: Record) -> bool:
    """Run one part. Returns whether this process can run further parts."""
    begun, cpu = time.time(), _cpu_seconds()
    if record.left() < LEAST:
        record.end('skipped', seconds=0.0, cpu_seconds=0.0, error=USED_UP)
        return True
    record.save()
    try:
        with alarm(record.left()):
            part(record)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        traceback.print_exc()
        text = str(error) if isinstance(error, SystemExit | OutOfTime) else f'{type(error).__name__}: {error}'
        spent = {'seconds': rounded(time.time() - begun), 'cpu_seconds': rounded(_cpu_seconds() - cpu)}
        record.end('failed', **spent, error=text, traceback=traceback.format_exc())
        return False
    record.end('ok', seconds=rounded(time.time() - begun), cpu_seconds=rounded(_cpu_seconds() - cpu))
    return True


def _cpu_seconds() -> float:
    """CPU time of this process and of the children it has waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


# around the worker


def supervise(command: Sequence[str], names: Sequence[str], until: float, folder: Path) -> dict[str, dict[str, Any]]:
    """Run workers until every part has ended. Returns part -> content of its file.

    A worker is started with ``command`` and one more argument, the comma-separated remaining parts.
    """
    left = list(names)
    found: dict[str, dict[str, Any]] = {}
    while left:
        if until - time.time() < LEAST:
            found |= {name: {**NOTHING, 'status': 'skipped', 'error': USED_UP} for name in left}
            break
        # a new session, so that processes started by a part can be killed with it
        process = subprocess.Popen([*command, ','.join(left)], start_new_session=True)
        try:
            reason = _watch(process, left, folder)
        finally:
            _kill(process)
        ended = dict(itertools.takewhile(lambda item: _has_ended(item[1]), ((name, read(folder, name)) for name in left)))
        found |= {name: state for name, state in ended.items() if state is not None}
        left = left[len(ended) :]
        # a worker ends itself after a failed part; otherwise its current (or first) part has ended it
        if left and (read(folder, left[0]) is not None or not ended):
            name = left.pop(0)
            found[name] = {**NOTHING, **(read(folder, name) or {}), 'status': 'failed', 'error': reason}
    return found


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """The results of a part so far; None before it starts."""
    try:
        state: dict[str, Any] = json.loads((folder / f'{name}.json').read_text())
    except FileNotFoundError:
        return None
    return state


def _has_ended(state: Mapping[str, Any] | None) -> bool:
    return state is not None and state['status'] != 'running'


def _watch(process: subprocess.Popen[bytes], names: Sequence[str], folder: Path) -> str:
    """Wait for a worker, and kill it after its time. Returns how it ended, in words."""
    patience = time.time() + STARTUP
    while process.poll() is None:
        states = [state for name in names if (state := read(folder, name)) is not None]
        running = [state for state in states if state['status'] == 'running']
        if running:
            patience = time.time() + GRACE
        elif len(states) == len(names):
            patience = min(patience, time.time() + GRACE)
        if time.time() > (running[0]['until'] + GRACE if running else patience):
            _kill(process)
            return 'it did not react to the end of its time, and was killed'
        time.sleep(0.1)
    code = process.returncode
    return f'its process was ended by {signal.Signals(-code).name}' if code < 0 else f'its process ended with code {code}'


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
