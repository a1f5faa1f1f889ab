"""Fixtures for tests of files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.io.killing import Killer


@pytest.fixture(scope='session')
def killer() -> Iterator[Killer]:
    """``killer.run(action, at)``: whether a picklable action finished before its file system change number ``at``."""
    with Killer() as killer:
        yield killer
