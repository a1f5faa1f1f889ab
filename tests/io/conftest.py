"""What tests of files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.io.killing import Killer


@pytest.fixture(scope='session')
def killer() -> Iterator[Killer]:
    """``killer.run(action, at)``: whether an action that can be pickled got through before its change number ``at``."""
    with Killer() as killer:
        yield killer
