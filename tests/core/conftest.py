"""Config files written by a test."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write('a/b.py', text)`` -> the path of a config file below a folder that is not the working directory."""

    def make(name: str, text: str) -> Path:
        path = tmp_path / 'written' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return make
