"""What every store of remote files has in common: versions, kinds of failures, attempts.

A store answers for addresses of one scheme: ``stat`` (size and version), ``read`` (a range of bytes of that version), and
``walk`` (all files below an address). It makes one attempt, within a time limit; ``persist`` makes the further ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypeVar

from vq.core.errors import RunFailure

T = TypeVar('T')

ATTEMPTS = 5
PAUSE = 0.5  # seconds before the second attempt; twice as many before each further one
PATIENCE = 60.0  # seconds after which a connection that sends fewer than ``SLOWEST`` bytes per second counts as broken
SLOWEST = 1000
SILENCE = 30.0  # seconds without a byte after which a connection counts as broken
CHUNK = 1 << 18


class Stat(NamedTuple):
    """``version``: what changes with the content (an ETag, a date); '' if the store does not say."""

    size: int
    version: str = ''


class Missing(Exception):
    """There is no such file."""


class Changed(Exception):
    """The file has another version than the one that is being read."""


class Passing(Exception):
    """A failure that may pass: the call is repeated."""


class Store(Protocol):
    local: bool  # no network: nothing is copied into the cache

    def stat(self, url: str) -> Stat: ...

    def read(self, url: str, start: int, stop: int, version: str) -> bytes:
        """Bytes ``start`` to ``stop``, fewer only if the file ends before. ``Changed`` if its version is another."""
        ...

    def walk(self, url: str) -> Iterator[tuple[str, Stat]]:
        """(path below ``url``, stat) of every file below it."""
        ...


def persist(url: str, call: Callable[[], T]) -> T:
    """The result of ``call``, repeated while it fails in a way that may pass."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except Passing as error:
            if attempt == ATTEMPTS:
                raise RunFailure(
                    f'{url} cannot be read: {error} ({ATTEMPTS} attempts)',
                    'Look at the network and at the server, then run this again: what has arrived is kept.',
                ) from error
            time.sleep(PAUSE * 2 ** (attempt - 1))
    raise AssertionError('not reached')


def gather(read: Callable[[int], bytes], wanted: int) -> bytes:
    """``wanted`` bytes, fewer at the end. A sender that is too slow counts as a broken connection."""
    parts: list[bytes] = []
    arrived, began, since = 0, time.monotonic(), 0
    while arrived < wanted and (chunk := read(min(CHUNK, wanted - arrived))):
        parts.append(chunk)
        arrived += len(chunk)
        seconds = time.monotonic() - began
        if seconds >= PATIENCE:
            if arrived - since < SLOWEST * seconds:
                raise Passing(f'only {arrived - since:,} bytes came in {seconds:.0f} seconds')
            began, since = began + seconds, arrived
    return b''.join(parts)
