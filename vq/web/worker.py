"""The process that loads and runs models for the page: a job at a time, in the order of arrival. See ``jobs.py``."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import IO, Any

from vq.core.errors import UserError
from vq.core.trust import Untrusted

KINDS = {  # kind of a job -> module and function that does it
    'survey': ('vq.web.survey', 'survey'),
    'draw': ('vq.web.drawing', 'draw'),
    'reconstruct': ('vq.web.reconstructing', 'reconstruct'),
    'compare': ('vq.web.comparing', 'compare'),
}
PAUSE = 0.3  # seconds between two previews, at least
NO_TRUST = 'This page imports no code of a run. Use the run in a terminal, with --trust, if you trust its author.'


class Cancelled(Exception):
    """The job was cancelled while it ran."""


class Telling:
    """What a job tells while it runs. Telling raises ``Cancelled`` once the job is cancelled."""

    def __init__(self, number: int, send: Callable[[Mapping[str, Any]], None], cancelled: set[int]) -> None:
        self.number, self._send, self._cancelled = number, send, cancelled
        self._shown = 0.0

    def __call__(self, share: float | None, note: str = '', preview: Callable[[], str] | None = None) -> None:
        """``share``: of the work that is done; None: not known. ``preview`` makes a data URL, if it is time for one."""
        if self.number in self._cancelled:
            raise Cancelled
        message: dict[str, Any] = {'job': self.number, 'share': share, 'note': note}
        if preview is not None and time.monotonic() - self._shown > PAUSE:
            message['preview'] = preview()
            self._shown = time.monotonic()
        self._send(message)


def main() -> None:
    """Read messages until the server closes the pipe."""
    with open(os.dup(1), 'wb') as out:
        os.dup2(2, 1)  # what models print goes to the terminal, not into the messages
        lock = threading.Lock()

        def send(message: Mapping[str, Any]) -> None:
            with lock, contextlib.suppress(BrokenPipeError):  # the server has ended, which reading tells
                out.write(json.dumps(message).encode() + b'\n')
                out.flush()

        arrived: queue.Queue[Mapping[str, Any] | None] = queue.Queue()
        cancelled: set[int] = set()
        threading.Thread(target=listen, args=(sys.stdin.buffer, arrived, cancelled), daemon=True).start()
        settings: dict[str, Any] = {}
        while (message := arrived.get()) is not None:
            if 'settings' in message:
                settings |= message['settings']
            else:
                work(message, settings, send, cancelled)


def listen(stream: IO[bytes], arrived: queue.Queue[Mapping[str, Any] | None], cancelled: set[int]) -> None:
    for line in stream:
        message = json.loads(line)
        if 'cancel' in message:
            cancelled.add(message['cancel'])
        else:
            arrived.put(message)
    arrived.put(None)


def work(
    message: Mapping[str, Any], settings: Mapping[str, Any], send: Callable[[Mapping[str, Any]], None], cancelled: set[int]
) -> None:
    """Do one job. Whatever goes wrong is told, and the process goes on."""
    number = message['job']
    try:
        tell = Telling(number, send, cancelled)
        module, name = KINDS[message['kind']]
        tell(None, 'loading the program' if module not in sys.modules else '')
        done = getattr(importlib.import_module(module), name)(message['asked'], settings, tell)
        send({'job': number, 'done': done})
    except Cancelled:
        send({'job': number, 'cancelled': True})
    except UserError as error:
        hint = NO_TRUST if isinstance(error, Untrusted) else error.hint
        send({'job': number, 'error': error.message, 'hint': hint})
    except Exception as error:
        traceback.print_exc()
        said = f'{type(error).__name__}: {error}'
        send({'job': number, 'error': said[:2000], 'hint': 'The terminal of vq web shows where it happened.'})
    finally:
        cancelled.discard(number)
