"""A folder of all workers is made once, and again after a failure."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.once import once


def test_a_folder_is_made_once_and_again_after_a_failure(tmp_path_factory: pytest.TempPathFactory) -> None:
    name, made = f'once-{uuid.uuid4().hex}', []

    def make(folder: Path) -> None:
        assert not list(folder.iterdir()), 'what a failure has left is gone'
        (folder / 'file').touch()
        made.append(folder)
        if len(made) == 1:
            raise ValueError('the first fails')

    with pytest.raises(ValueError, match='first'):
        once(tmp_path_factory, name, make)
    assert once(tmp_path_factory, name, make) == once(tmp_path_factory, name, make) == made[1]
    assert len(made) == 2
