"""Golden figures of peer projects: numbers, no code. ``VQ_GOLDEN`` names the folder; ``VQ_REQUIRE_GOLDEN=1`` insists."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

FOLDER = Path(os.environ.get('VQ_GOLDEN') or Path(__file__).resolve().parents[3] / 'shared' / 'golden')


class Golden:
    """One file: ``golden['in/x']`` is a tensor, ``golden.meta`` the peer's configuration, ``golden.state`` its weights."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.meta: dict[str, Any] = json.loads(str(self.arrays.pop('meta')))

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    @property
    def state(self) -> dict[str, Tensor]:
        return {name.removeprefix('sd/'): self[name] for name in self.arrays if name.startswith('sd/')}


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    def load(name: str) -> Golden:
        path = FOLDER / f'{name}.npz'
        if not path.exists():
            message = f'golden file {path.name} is not in {FOLDER} (VQ_GOLDEN names another folder)'
            if os.environ.get('VQ_REQUIRE_GOLDEN') == '1':
                pytest.fail(message)
            pytest.skip(message)
        return Golden(path)

    return load
