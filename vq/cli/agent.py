"""Starts the ranks of this machine, and all of them again when one dies, in step with the launchers of other machines.

torchrun 2.9 does the same, not well enough for runs that are to go on by themselves. After a rank over gloo was killed, the
ranks it started next looked for the dead one's address and failed (in two of two tries on one machine). It kills ranks 30
seconds after it was asked to stop, in the middle of a long checkpoint. It starts again what can only fail again, such as
bad usage. Its agents on several machines count restarts, and choose who is rank 0, each on their own. Here one launcher
decides, every attempt has a store and a port of its own, and processes find the variables that torch asks for under the
names torchrun gives them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import tempfile
import time
import uuid
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from vq.cli.meeting import Guest, Host, Message
from vq.cli.ports import reserved_port
from vq.cli.several import Failure, Ranks
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.cli.launch import Plan

POLL = 0.05  # seconds
SOON = 5.0  # what the others have after a failure
PATIENTLY = 120.0  # what ranks have to end after the first of them has ended because it was asked to stop
LATECOMERS = 1.0  # a failure may be the echo of a death on another machine, of which the news is under way
STOPPED = Failure('stopped by a signal', 'Go on with the same command and --auto-resume.', stopped=True)


class Agent:
    """One launcher."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.place = plan, plan.place
        self.ranks: Ranks | None = None
        self.signals = 0  # that have come
        self.interrupts = 0  # of them Ctrl-C: the second one waits for nothing

    def asked(self) -> bool:
        return self.signals > 0

    def run(self) -> int:
        """Until the end; the exit code. The first error of the last attempt is said last."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
        previous = {number: signal.signal(number, self._hear) for number in numbers}
        try:
            with tempfile.TemporaryDirectory(prefix='vq-') as folder:
                self.folder = Path(folder)
                failure = self._lead() if self.place.index == 0 else self._follow()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        if failure is None:
            return 0
        print(f'error: {failure.message}', *([failure.hint] if failure.hint else []), sep='\n', file=sys.stderr, flush=True)
        return failure.code

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """A signal to this process is one to all ranks of the machine; SIGUSR1, which few programs know, becomes SIGTERM."""
        self.signals += 1
        self.interrupts += number == signal.SIGINT
        if self.ranks is not None:
            passed_on = signal.SIGTERM if number == signal.SIGUSR1 else number
            self.ranks.signal(signal.SIGKILL if self.interrupts > 1 else passed_on)

    def _start(self, attempt: int, port: int, run: str) -> None:
        elastic = {
            'TORCHELASTIC_RUN_ID': run,
            'TORCHELASTIC_RESTART_COUNT': str(attempt),
            'TORCHELASTIC_MAX_RESTARTS': str(self.plan.max_restarts),
        }
        telling = {'PYTHONFAULTHANDLER': '1'}  # where a rank was when it crashes in native code
        environments = [
            {**telling, **os.environ, **self.plan.settings, **self.place.variables(index, port), **elastic}
            for index in range(self.place.processes)
        ]
        self.ranks = Ranks(self.plan.command(), environments, self.folder / f'error_{attempt}.json')
        if self.asked():  # while they were being started
            self.ranks.signal(signal.SIGTERM)

    def _stop(self, seconds: float, gently: bool) -> None:
        assert self.ranks is not None
        self.ranks.stop(seconds, gently, hurry=lambda: self.interrupts > 1)
        self.ranks = None

    # node 0, and a machine alone

    def _lead(self) -> Failure | None:
        with contextlib.closing(Host(self.place)) as others:
            try:
                failure = self._attempts(others)
            except UserError as error:
                others.tell(end=dataclasses.asdict(Failure(error.message, error.hint, error.exit_code)))
                raise
            others.tell(end=failure and dataclasses.asdict(failure))
            return failure

    def _attempts(self, others: Host) -> Failure | None:
        run, attempt = uuid.uuid4().hex, 0
        while True:
            others.gather(self.asked)
            if self.asked():
                return STOPPED
            with reserved_port() as free:
                port = self.place.port if attempt == 0 and self.place.port else free  # the first one may linger
                others.tell(start=attempt, port=port, run=run)
                self._start(attempt, port, run)
                failure = self._watch(others, attempt)
                if failure is None:
                    return None
                self._stop_all(others, attempt, failure)
            if failure.final or attempt == self.plan.max_restarts:
                return failure
            attempt += 1
            print(
                f'auto_torchrun: {failure.message}; starting all ranks again (restart {attempt} of {self.plan.max_restarts})',
                file=sys.stderr,
                flush=True,
            )

    def _watch(self, others: Host, attempt: int) -> Failure | None:
        """Until all ranks are done, or one has failed: the one that died first, as far as that can be told."""
        done: set[int] = set()
        failure, deadline = None, float('inf')
        while time.monotonic() < deadline:
            heard = [(index, message) for index, message in others.poll(POLL) if self._is_new(message, attempt)]
            failures = [found for index, message in heard if (found := failure_of(index, message)) is not None]
            failures += [found] if (found := self._own_failure()) is not None else []
            failure = next((found for found in failures if found.killed), failure or (failures[0] if failures else None))
            done |= {index for index, message in heard if 'done' in message}
            if failure is not None:
                alone = failure.killed or failure.final or self.place.launchers == 1
                deadline = min(deadline, time.monotonic() + (0.0 if alone else LATECOMERS))
            elif self.ranks is not None and self.ranks.done() and len(done) == self.place.launchers - 1:
                return None
        assert failure is not None
        return dataclasses.replace(failure, stopped=True) if self.asked() else failure

    def _is_new(self, message: Message, attempt: int) -> bool:
        if 'asked' in message:
            self.signals = max(self.signals, 1)
        return 'lost' in message or message.get('attempt') == attempt

    def _own_failure(self) -> Failure | None:
        return self.ranks.failure() if self.ranks is not None else None

    def _stop_all(self, others: Host, attempt: int, failure: Failure) -> None:
        seconds, gently = (PATIENTLY, True) if failure.stopped else (SOON, False)
        others.tell(stop=seconds, gently=gently)
        waited_for = set(others.lines)
        self._stop(seconds, gently)
        deadline = time.monotonic() + seconds + SOON
        while waited_for and time.monotonic() < deadline:
            for index, message in others.poll(POLL):
                if 'lost' in message or message.get('stopped') == attempt:
                    waited_for.discard(index)

    # the other nodes

    def _follow(self) -> Failure | None:
        with contextlib.closing(Guest(self.place, self.asked)) as leader:
            if leader.line is None:
                return STOPPED
            attempt, told = -1, set[str]()
            while True:
                for message in leader.poll(POLL):
                    if 'end' in message or 'lost' in message:
                        if self.ranks is not None:
                            self._stop(PATIENTLY if self.asked() else SOON, gently=self.asked())
                        return end_of(message)
                    if 'start' in message:
                        attempt, told = int(message['start']), set[str]()
                        self._start(attempt, int(message['port']), str(message['run']))
                    elif 'stop' in message:
                        if self.ranks is not None:
                            self._stop(float(message['stop']), bool(message['gently']))
                        leader.send(stopped=attempt)
                if self.asked() and attempt < 0:
                    return STOPPED
                self._report(leader, attempt, told)

    def _report(self, leader: Guest, attempt: int, told: set[str]) -> None:
        """What node 0 has not heard yet of this attempt."""
        if self.asked() and 'asked' not in told:
            leader.send(asked=True, attempt=attempt)
            told.add('asked')
        failure = self._own_failure()
        if failure is not None and 'failed' not in told:
            leader.send(failed=dataclasses.asdict(failure), attempt=attempt)
            told.add('failed')
        if self.ranks is not None and self.ranks.done() and 'done' not in told:
            leader.send(done=True, attempt=attempt)
            told.add('done')


def failure_of(index: int, message: Message) -> Failure | None:
    if 'lost' in message:
        return Failure(
            f'the launcher of node {index} has gone',
            'Look at what it said; go on with the same command and --auto-resume.',
            killed=True,
        )
    return Failure(**message['failed']) if 'failed' in message else None


def end_of(message: Message) -> Failure | None:
    if 'end' not in message:
        return Failure(
            'the launcher of node 0 has gone', 'Look at what it said; go on with the same command and --auto-resume.'
        )
    return Failure(**message['end']) if message['end'] else None
