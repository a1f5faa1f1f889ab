"""Fixtures of all tests: two gloo ranks, a warm process, a killer of children; they live as long as the session."""

from __future__ import annotations

import compileall
import contextlib
import gc
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Before torch is imported, which fixtures do: the networks of the tests are so small that a second thread costs more than it
# gains. Threads that spin while waiting stall if another process uses the core.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
os.environ.setdefault('TORCHINDUCTOR_COMPILE_THREADS', '1')  # with more, each worker starts a process that imports torch

from tests.order import dealt
from tests.sources import ROOT

if TYPE_CHECKING:  # the process that only deals out tests does without torch
    from tests.io.killing import Killer
    from tests.ranks import GlooPool

FLUSH = os.fsync


WRITES_NO_BYTECODE = sys.dont_write_bytecode


def _restore() -> None:
    sys.dont_write_bytecode = WRITES_NO_BYTECODE


def written(file: int) -> None:
    """In place of ``os.fsync``: an error for what is no open file. A process that is killed leaves what it wrote, flushed or
    not, so a test would wait for the disk and see nothing of it. ``tests/io`` flushes.
    """
    os.fstat(file)


os.fsync = written  # type: ignore[assignment]

PROCESSES = {'gloo_pool', 'warm_programs', 'killer'}  # fixtures that start processes


@pytest.fixture(scope='session')
def gloo_pool() -> Iterator[GlooPool]:
    """``gloo_pool.run(function, *arguments)`` -> [result of rank 0, result of rank 1]."""
    from tests.ranks import GlooPool

    pool = GlooPool(2)
    yield pool
    pool.close()


@pytest.fixture(scope='session')
def warm_programs() -> Path:
    """A folder with programs ``auto_torchrun`` and ``python`` that start fast, as they have imported torch already."""
    from tests.warm import programs

    return programs()


@pytest.fixture(scope='session')
def killer() -> Iterator[Killer]:
    """``killer.run(action, at)``: whether a picklable action finished before its file system change number ``at``."""
    from tests.io.killing import Killer

    with Killer() as killer:
        yield killer


@pytest.fixture(scope='session', autouse=True)
def _torch_is_told_less() -> None:
    """What torch does for each seed and pytest for each logger would take a tenth of the fast tier."""
    import torch

    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        # it seeds absent devices later, and formats the stack of the caller for each of them: two milliseconds
        torch.manual_seed = torch.default_generator.manual_seed
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith('torch') and isinstance(logger, logging.Logger):
            logger.propagate = True  # pytest attaches itself six times a test to each of the 50 that do not


@pytest.fixture(autouse=True)
def _single_process() -> Iterator[None]:
    """Restore the collectives' back end, the number of threads and random states after each test."""
    import torch

    from vq.core import collectives

    collectives.install(None)
    torch.manual_seed(0)
    yield
    collectives.install(None)


def pytest_configure(config: pytest.Config) -> None:
    """Once for all workers: where bytecode is not written, every process that a test starts would compile vq again."""
    if sys.dont_write_bytecode and not hasattr(config, 'workerinput'):
        compileall.compile_dir(ROOT / 'vq', quiet=2)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    for item in items:
        if PROCESSES & set(getattr(item, 'fixturenames', ())):
            item.add_marker('slow')
    yield  # -m and -k choose
    workers = getattr(config, 'workerinput', {}).get('workercount', 1)
    if workers > 1:
        slow = {item.nodeid for item in items if item.get_closest_marker('slow')}
        ranks = {item.nodeid for item in items if 'gloo_pool' in getattr(item, 'fixturenames', ())}
        items[:] = dealt(items, workers, slow, ranks)


def pytest_collection(session: pytest.Session) -> None:
    """Pytest may keep the test files that it has rewritten, also where bytecode is not written. Of all files, each worker
    first imports its share, and then reads what the others have rewritten meanwhile.
    """
    sys.dont_write_bytecode = False
    session.config.add_cleanup(_restore)
    worker = getattr(session.config, 'workerinput', None)
    if worker is None or ROOT / 'tests' not in map(Path.resolve, map(Path, session.config.args)):
        return
    share = int(worker['workerid'].removeprefix('gw')), worker['workercount']
    for path in sorted((ROOT / 'tests').rglob('test_*.py'))[share[0] :: share[1]]:
        with contextlib.suppress(Exception, pytest.skip.Exception):  # collection imports it again, and reports that
            importlib.import_module('.'.join(path.relative_to(ROOT).with_suffix('').parts))


def pytest_collection_finish() -> None:
    _restore()
    gc.freeze()  # modules and tests stay alive: keep the garbage collector from scanning a million objects repeatedly


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker('gpu'):
        import torch

        if not torch.cuda.is_available():
            pytest.skip('needs a CUDA device, and this machine has none')
