"""The pool of ranks: a rank that dies is named, and later tests get new processes."""

from __future__ import annotations

import os
import signal

import pytest

from tests import ranks


def process() -> int:
    return os.getpid()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_rank_that_dies_fails_its_own_test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And after a number of calls processes are new, since the groups of earlier calls are not freed."""
    monkeypatch.setattr(ranks, 'MOST', 2)
    pool = ranks.GlooPool(1)
    first = pool.run(process)
    with pytest.raises(AssertionError, match='rank 0 died, with exit code -9'):
        pool.run(die)
    second, again, third = (pool.run(process) for _ in range(3))
    pool.close()
    assert second == again and len({*first, *second, *third}) == 3
