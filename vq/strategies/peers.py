"""Errors of ``torch.distributed`` that mean that another rank has ended or does not answer, as messages."""

from __future__ import annotations

import contextlib
import re
import time

from torch.distributed import DistError, Store  # type: ignore[attr-defined]

from vq.core.errors import RunFailure, listing

SILENT = re.compile(r'tim(ed|e)[ -]?out', re.IGNORECASE)
ECHO = 2.0  # seconds in which the ranks that still run report that they have lost another one
GO_ON = 'Go on with the same command and --auto-resume.'


def is_loss(error: BaseException | None) -> bool:
    """Whether ``error`` comes from the communication of ranks: torch's own types, or gloo's, which are bare RuntimeErrors."""
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and 'gloo' in str(error))


def explain(error: BaseException, rank: int, size: int, timeout: float, store: Store | None) -> RunFailure:
    """What a rank says in place of ``error``. After a time-out all ranks that notice it meet in the store, which tells who
    is missing. After a broken connection there is no time for that: launchers end the other ranks at once."""
    reason = str(error).strip().splitlines()[0].rpartition('] ')[2][:120]
    if not SILENT.search(str(error)):
        return RunFailure(
            f'rank {rank} lost the connection to another rank ({reason})', f'The cause is in the output of that rank. {GO_ON}'
        )
    lost = _others(rank, size, store)
    who = 'another rank' if lost is None else f'rank {lost[0]}' if len(lost) == 1 else f'the ranks {listing(map(str, lost))}'
    return RunFailure(
        f'rank {rank} waited up to {timeout:g} s for {who}, without an answer ({reason})',
        f'That process is stopped, hangs, or lost its machine. If it was only slow, raise timeout in the strategy. {GO_ON}',
    )


def _others(rank: int, size: int, store: Store | None) -> list[int] | None:
    """The ranks that have not reported the loss within ``ECHO`` seconds; None if that is unknown."""
    if store is None:
        return None
    keys = {other: f'vq/noticed/{other}' for other in range(size)}
    with contextlib.suppress(DistError, RuntimeError):
        store.set(keys[rank], '')
        deadline = time.monotonic() + ECHO
        while (left := [other for other in keys if not store.check([keys[other]])]) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left or None
    return None  # the process that serves the store has gone
