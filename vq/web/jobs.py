"""The queue of jobs and the one process that does them. Works without torch.

Server and worker exchange lines of JSON over the worker's standard input and output:

    -> {"job": 3, "kind": "draw", "asked": {...}}      -> {"cancel": 3}
    <- {"job": 3, "share": 0.4, "note": "...", "preview": "data:..."}
    <- {"job": 3, "done": {...}}    <- {"job": 3, "error": "...", "hint": "..."}    <- {"job": 3, "cancelled": true}
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Any, Literal

from vq.core import child
from vq.core.errors import UserError

State = Literal['waiting', 'running', 'done', 'failed', 'cancelled']

WAITING = 20  # jobs that wait, at most
KEPT = 40  # jobs that have ended, whose results can be asked for
GRACE = 4.0  # seconds between a request to stop and the end of the process
START = 'from vq.web.worker import main; main()'
ENDED = ('done', 'failed', 'cancelled')


@dataclasses.dataclass
class Job:
    """Something that the worker is asked to do. ``share``: of the work that is done; None: not known."""

    number: int
    kind: str
    asked: Mapping[str, Any]
    state: State = 'waiting'
    share: float | None = None
    note: str = ''
    previews: int = 0  # how many there were
    preview: str = ''  # the last one, a data URL
    result: Mapping[str, Any] | None = None
    error: str = ''
    hint: str = ''
    cancelled_at: float | None = None


class Queue:
    """Jobs in the order of their arrival, and a thread that hands them to a worker process, one at a time."""

    def __init__(self, settings: Mapping[str, Any], start: Callable[[], Worker] | None = None) -> None:
        self.settings = settings
        self._start: Callable[[], Worker] = start or Worker
        self._jobs: dict[int, Job] = {}
        self._waiting: collections.deque[Job] = collections.deque()
        self._changed = threading.Condition()
        self._worker: Worker | None = None
        self._numbers, self._closed = 0, False
        self._thread = threading.Thread(target=self._serve, name='vq.web jobs', daemon=True)
        self._thread.start()

    def add(self, kind: str, asked: Mapping[str, Any], first: bool = False) -> Job:
        """``first``: before all that wait, and also if the queue is full; for the server's own jobs."""
        with self._changed:
            if len(self._waiting) >= WAITING and not first:
                raise UserError(f'{WAITING} jobs wait already', 'Cancel some of them, or wait.')
            self._numbers += 1
            job = Job(self._numbers, kind, asked)
            self._jobs[job.number] = job
            (self._waiting.appendleft if first else self._waiting.append)(job)
            self._changed.notify_all()
        return job

    def job(self, number: int) -> Job:
        with self._changed:
            if number not in self._jobs:
                raise UserError(f'there is no job {number}', 'It has been forgotten, or the server was restarted: ask again.')
            return self._jobs[number]

    def ahead(self, job: Job) -> int:
        """How many jobs come before this one."""
        with self._changed:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + 1

    def cancel(self, number: int) -> None:
        """A job that waits does not begin. One that runs is asked to stop; see ``_watch_over``."""
        job = self.job(number)
        with self._changed:
            if job.state == 'waiting':
                self._waiting.remove(job)
                job.state = 'cancelled'
            elif job.state == 'running' and job.cancelled_at is None:
                job.cancelled_at = time.monotonic()
                if self._worker is not None:
                    self._worker.send({'cancel': job.number})
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._worker is not None:
                self._worker.end()

    # the thread

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                job = self._waiting.popleft()
                job.state = 'running'
                if self._worker is None or not self._worker.alive:
                    self._worker = self._start()
                    self._worker.send({'settings': dict(self.settings)})
                worker = self._worker
                worker.send({'job': job.number, 'kind': job.kind, 'asked': job.asked})
            watcher = threading.Thread(target=self._watch_over, args=(job, worker), daemon=True)
            watcher.start()
            while job.state == 'running':
                self._take(job, worker.receive())
            with self._changed:
                self._forget()
                self._changed.notify_all()
            watcher.join()

    def _take(self, job: Job, message: Mapping[str, Any] | None) -> None:
        """What the worker says of the job; None: it has ended."""
        with self._changed:
            if message is None and job.cancelled_at is not None:
                job.state = 'cancelled'
            elif message is None:
                job.state, job.error = 'failed', 'the process that works for this page has ended'
                job.hint = (
                    'Its last words are in the terminal of vq web. Too little memory is a usual reason: draw fewer images.'
                )
            elif message.get('job') != job.number:
                return
            elif 'done' in message:
                job.state, job.result, job.share = 'done', message['done'], 1.0
            elif 'error' in message:
                job.state, job.error, job.hint = 'failed', str(message['error']), str(message.get('hint', ''))
            elif 'cancelled' in message:
                job.state = 'cancelled'
            else:
                job.share, job.note = message.get('share'), str(message.get('note', ''))
                if message.get('preview'):
                    job.previews, job.preview = job.previews + 1, message['preview']
            self._changed.notify_all()

    def _watch_over(self, job: Job, worker: Worker) -> None:
        """End the process if it does not stop a job that was cancelled: it can be loading, or measuring."""
        with self._changed:
            self._changed.wait_for(lambda: job.state in ENDED or job.cancelled_at is not None)
            if not self._changed.wait_for(lambda: job.state in ENDED, GRACE):
                worker.end()

    def _forget(self) -> None:
        ended = [number for number, job in self._jobs.items() if job.state in ENDED]
        for number in ended[:-KEPT]:
            del self._jobs[number]


class Worker:
    """The process. It ends with this one."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        # a session of its own: Ctrl+C is for the server, which ends this process
        self._process = subprocess.Popen(child.command('-c', START), stdin=pipe, stdout=pipe, start_new_session=True)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, message: Mapping[str, Any]) -> None:
        stream: IO[bytes] | None = self._process.stdin
        assert stream is not None
        with contextlib.suppress(OSError):  # it has ended, which receiving tells
            stream.write(json.dumps(message).encode() + b'\n')
            stream.flush()

    def receive(self) -> Mapping[str, Any] | None:
        """The next message; None once the process has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            return None
        message: Mapping[str, Any] = json.loads(line)
        return message

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
