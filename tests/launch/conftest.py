"""An environment without variables of clusters, and launchers that start warm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.launch.support import Launchers

OTHERS = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT', 'PJRT_DEVICE')
OTHERS += ('JOB_COMPLETION_INDEX', 'OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'VQ_FIRST_ERROR')


@pytest.fixture
def bare_environment(monkeypatch):
    """The environment of a CPU machine. Variables that a test or a command sets are restored."""
    clusters = [name for name in os.environ if name.startswith(('SLURM_', 'PET_', 'TPU_', 'TORCHELASTIC_'))]
    for name in [*OTHERS, *clusters]:
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')


@pytest.fixture
def launchers(tmp_path: Path, warm_programs: Path) -> Launchers:
    return Launchers(tmp_path, warm_programs / 'python')
