"""Golden figures of peer projects, by name. ``tests/published.py`` has the paths of the files."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.published import GOLDEN as FOLDER
from tests.published import Golden, read_golden

__all__ = ['FOLDER', 'Golden', 'golden']


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    return read_golden
