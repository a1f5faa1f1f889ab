"""Fixtures for tests of files."""

from __future__ import annotations

import os

import pytest

from tests.conftest import FLUSH
from tests.io.remote_places import bucket_server, network, there  # noqa: F401


@pytest.fixture(autouse=True)
def _flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests wait for the disk, as commands do."""
    monkeypatch.setattr(os, 'fsync', FLUSH)
