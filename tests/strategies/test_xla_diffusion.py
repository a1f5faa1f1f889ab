"""Diffusion on XLA's CPU device against the CPU itself; a process of its own, as in test_xla.py."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.runners.support import REPOSITORY
from tests.strategies import xla_diffusion_runs as runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xla,
    pytest.mark.skipif(importlib.util.find_spec('torch_xla') is None, reason='torch_xla is not installed: make test-xla'),
]


@pytest.fixture(scope='module')
def sides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Folder and findings of the CPU and of XLA. Neither run sees the other's process."""
    folder = tmp_path_factory.mktemp('diffusion')
    environment = {name: value for name, value in os.environ.items() if not name.startswith(('XLA_', 'PJRT_', 'PT_XLA'))}
    environment |= {'PJRT_DEVICE': 'CPU', 'CPU_NUM_DEVICES': '1', 'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'}
    environment |= {'XLA_FLAGS': '--xla_backend_optimization_level=0'}
    command = [sys.executable, '-m', 'tests.strategies.xla_diffusion_runs', str(folder / 'xla')]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {'xla': json.loads(done.stdout.strip().splitlines()[-1]), 'cpu': runs.train_and_draw(folder / 'cpu', 'base')}
    return {name: (folder / name, value) for name, value in found.items()}


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys() and first
    return max(float((first[key].double() - second[key].double()).abs().max()) for key in first)


def test_steps_are_those_of_the_cpu(sides: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    """Noise, spread times and dropped classes are functions of the samples: 4 steps have the same losses and weights."""
    (ours, found), (theirs, expected) = sides['xla'], sides['cpu']
    assert len(found['losses']) == runs.ITERS and found['losses'] == pytest.approx(expected['losses'], rel=1e-4)
    for name in ('model', 'ema'):
        first, second = (load_file(place / f'run/checkpoints/iter_4/{name}.safetensors') for place in (ours, theirs))
        assert largest_difference(first, second) < 1e-4, name


def test_random_words_are_those_of_the_cpu(sides: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    """Exactly. torch_xla's ``>>`` rounds negative numbers towards zero, which gives other noise without an error."""
    assert sides['xla'][1]['words'] == sides['cpu'][1]['words']


def test_no_step_compiles_after_the_second(sides: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    found = sides['xla'][1]
    compiled = found['compiled']
    assert len(compiled) == runs.ITERS and compiled[1] == compiled[-1] > 0, compiled
    assert found['on_host'][1] == {}, 'computed or read on the host in the middle of training'
    drawing = found['compiled_drawing']
    assert drawing[1] == drawing[0] and drawing[3] == drawing[2], 'a second batch of images compiles again'


def test_images_are_those_of_the_cpu(sides: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    """Two samplers of 3 steps with guidance, one of them with noise in each step, each on its own trained weights."""
    first, second = (torch.load(place / 'drawn.pt', weights_only=True) for place, _ in sides.values())
    assert largest_difference(first, second) < 1e-4
    assert all(value.std() > 0.1 for value in first.values())
