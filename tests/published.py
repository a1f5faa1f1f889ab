"""Access to golden figures and key lists of peer projects: numbers and names, without their code and weights.

``VQ_GOLDEN`` and ``VQ_MANIFESTS`` are the folders; by default they are next to the repository. With ``VQ_REQUIRE_GOLDEN=1`` a
missing folder is a failure.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

SHARED = Path(__file__).resolve().parents[2] / 'shared'
GOLDEN = Path(os.environ.get('VQ_GOLDEN') or SHARED / 'golden')
MANIFESTS = Path(os.environ.get('VQ_MANIFESTS') or SHARED / 'manifests')


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


def find(path: Path, variable: str) -> Path:
    """Return the path if the file exists. Otherwise skip the test, or fail if files are required."""
    if not path.exists():
        message = f'{path.name} is not in {path.parent} ({variable} names another folder)'
        if os.environ.get('VQ_REQUIRE_GOLDEN') == '1':
            pytest.fail(message)
        pytest.skip(message)
    return path


def read_golden(name: str) -> Golden:
    return Golden(find(GOLDEN / f'{name}.npz', 'VQ_GOLDEN'))


def read_manifest(name: str) -> dict[str, Any]:
    """``tensors``: key -> shape; ``loss_tensors``: the same for networks of losses, if the file has them."""
    manifest: dict[str, Any] = json.loads(find(MANIFESTS / f'{name}.json', 'VQ_MANIFESTS').read_text())
    return manifest
