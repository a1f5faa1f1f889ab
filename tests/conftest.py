"""Fixtures of all tests: two gloo ranks and a warm process, which live as long as the session."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch is imported: the networks of the tests are so small that a second thread costs more than it gains. Threads that
# spin while waiting stall if another process uses the core.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

import torch

from tests.ranks import GlooPool
from tests.warm import WarmStart
from vq.core import collectives

PROCESSES = {'gloo_pool', 'warm_programs', 'killer'}  # fixtures that start processes


@pytest.fixture(scope='session')
def gloo_pool() -> Iterator[GlooPool]:
    """``gloo_pool.run(function, *arguments)`` -> [result of rank 0, result of rank 1]."""
    pool = GlooPool(2)
    yield pool
    pool.close()


@pytest.fixture(scope='session')
def warm_programs() -> Iterator[Path]:
    """A folder with programs ``auto_torchrun`` and ``python`` that start fast, as they have imported torch already."""
    with WarmStart() as warm:
        yield warm.folder


@pytest.fixture(autouse=True)
def _single_process() -> Iterator[None]:
    """Restore the collectives' back end, the number of threads and random states after each test."""
    collectives.install(None)
    torch.manual_seed(0)
    yield
    collectives.install(None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if PROCESSES & set(getattr(item, 'fixturenames', ())):
            item.add_marker('slow')


def pytest_collection_finish() -> None:
    gc.freeze()  # modules and tests stay alive: keep the garbage collector from scanning a million objects repeatedly


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker('gpu') and not torch.cuda.is_available():
        pytest.skip('needs a CUDA device, and this machine has none')
