"""Where the figures and key lists of peer projects lie: numbers and names, no code and no weights of theirs.

``VQ_GOLDEN`` and ``VQ_MANIFESTS`` name the folders; without them they are looked for beside the repository.
``VQ_REQUIRE_GOLDEN=1`` makes a missing one a failure.
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
    """The path itself; a test that needs a file which is not there is skipped, or fails where files are required."""
    if not path.exists():
        message = f'{path.name} is not in {path.parent} ({variable} names another folder)'
        if os.environ.get('VQ_REQUIRE_GOLDEN') == '1':
            pytest.fail(message)
        pytest.skip(message)
    return path


def read_golden(name: str) -> Golden:
    return Golden(find(GOLDEN / f'{name}.npz', 'VQ_GOLDEN'))


def read_manifest(name: str) -> dict[str, Any]:
    """``tensors``: key -> shape; ``loss_tensors``, where there are: those of the losses beside them."""
    manifest: dict[str, Any] = json.loads(find(MANIFESTS / f'{name}.json', 'VQ_MANIFESTS').read_text())
    return manifest
