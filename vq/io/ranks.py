"""File work on all ranks: an error on one rank is raised on every rank, so that no rank waits in a collective forever."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from vq.core import collectives
from vq.core.errors import RunFailure, UserError

T = TypeVar('T')


def run_on_all_ranks(action: Callable[[], T], what: str) -> list[T]:
    """Run ``action`` on every rank; every rank gets the results of all, in order of rank. All ranks must call it."""
    result: T | None = None
    error: Exception | None = None
    told: tuple[int, str, str] | None = None  # exit code, message, hint
    try:
        result = action()
    except UserError as caught:
        error, told = caught, (caught.exit_code, caught.message, caught.hint)
    except Exception as caught:
        error, told = caught, (1, f'{type(caught).__name__}: {caught}', '')
    answers = collectives.all_gather_object((told, result))
    if error is not None:
        raise error
    for rank, (told, _) in enumerate(answers):
        if told is not None:
            code, message, hint = told
            kind = UserError if code == UserError.exit_code else RunFailure
            raise kind(f'rank {rank} failed while {what}: {message}', hint or f'See the log of rank {rank}.')
    return [result for _, result in answers]
