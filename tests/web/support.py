"""A site that is served in this process, and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from vq.web.jobs import ENDED, Job, Queue
from vq.web.server import Site


class PlayedWorker:
    """In place of the process: ``act(message, tell)`` does a job, in a thread."""

    def __init__(self, act: Callable[[Mapping[str, Any], Callable[[Mapping[str, Any] | None], None]], None]) -> None:
        self.act, self.got, self.cancelled = act, list[Mapping[str, Any]](), set[int]()
        self._said: queue.Queue[Mapping[str, Any] | None] = queue.Queue()
        self.alive = True

    def send(self, message: Mapping[str, Any]) -> None:
        self.got.append(message)
        if 'cancel' in message:
            self.cancelled.add(message['cancel'])
        elif 'job' in message:
            threading.Thread(target=self.act, args=(message, self._said.put), daemon=True).start()

    def receive(self) -> Mapping[str, Any] | None:
        return self._said.get(timeout=30)

    def end(self) -> None:
        self.alive = False
        self._said.put(None)


def at_once(message: Mapping[str, Any], tell: Callable[[Mapping[str, Any] | None], None]) -> None:
    """A job that gives what was asked."""
    tell({'job': message['job'], 'done': {'kind': message['kind'], 'asked': message['asked'], 'runs': []}})


@contextlib.contextmanager
def served(root: Path, jobs: Queue | None = None) -> Iterator[Site]:
    site = Site(root, 'cpu', queue=jobs or Queue({}, lambda: PlayedWorker(at_once)))  # type: ignore[arg-type, return-value]
    thread = threading.Thread(target=site.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.shutdown()
        site.server_close()
        thread.join()


def ask(
    site: Site,
    path: str,
    body: bytes | Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
) -> tuple[int, Any, Mapping[str, str]]:
    """(status, content, headers): of a GET, or with a body of a POST. JSON is parsed."""
    given = dict(headers or {})
    if isinstance(body, Mapping):
        body, given = json.dumps(body).encode(), {'Content-Type': 'application/json', **given}
    connection = http.client.HTTPConnection(*site.server_address[:2], timeout=30)  # type: ignore[arg-type, misc]
    with contextlib.closing(connection):
        place = f'/{site.token if token is None else token}/{path}'
        connection.request('GET' if body is None else 'POST', place, body, given)
        answer = connection.getresponse()
        content, said = answer.read(), dict(answer.headers)
    is_json = said.get('Content-Type') == 'application/json'
    return answer.status, json.loads(content) if is_json else content, said


def done(jobs: Queue, job: Job, seconds: float = 60) -> Job:
    until = time.monotonic() + seconds
    while job.state not in ENDED:
        assert time.monotonic() < until, f'{job.kind} is {job.state} after {seconds} s'
        time.sleep(0.01)
    return job


def png(width: int = 40, height: int = 30, colour: tuple[int, int, int] = (200, 40, 90)) -> bytes:
    stream = io.BytesIO()
    Image.new('RGB', (width, height), colour).save(stream, 'PNG')
    return stream.getvalue()
