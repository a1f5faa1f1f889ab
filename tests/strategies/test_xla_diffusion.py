"""Diffusion, energies and MAR on XLA's CPU device against the CPU itself; a process of its own, as in test_xla.py."""

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


Side = tuple[Path, dict[str, Any]]  # a folder, and what was found


@pytest.fixture(scope='module')
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder, and what XLA found of each kind: one process for all, which has no other run in it."""
    folder = tmp_path_factory.mktemp('diffusion')
    environment = {name: value for name, value in os.environ.items() if not name.startswith(('XLA_', 'PJRT_', 'PT_XLA'))}
    environment |= {'PJRT_DEVICE': 'CPU', 'CPU_NUM_DEVICES': '1', 'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'}
    environment |= {'XLA_FLAGS': '--xla_backend_optimization_level=0'}
    command = [sys.executable, '-m', 'tests.strategies.xla_diffusion_runs', str(folder / 'xla')]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope='module')
def sides(everything: Side) -> dict[str, Side]:
    """Plain diffusion: folder and findings of the CPU and of XLA."""
    folder, found = everything
    return {'xla': (folder / 'xla', found['plain']), 'cpu': (folder / 'cpu', runs.train_and_draw(folder / 'cpu', 'base'))}


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys() and first
    return max(float((first[key].double() - second[key].double()).abs().max()) for key in first)


def test_steps_are_those_of_the_cpu(sides: dict[str, Side]) -> None:
    """Noise, spread times and dropped classes are functions of the samples: 4 steps have the same losses and weights."""
    (ours, found), (theirs, expected) = sides['xla'], sides['cpu']
    assert len(found['losses']) == runs.ITERS and found['losses'] == pytest.approx(expected['losses'], rel=1e-4)
    for name in ('model', 'ema'):
        first, second = (load_file(place / f'run/checkpoints/iter_4/{name}.safetensors') for place in (ours, theirs))
        assert largest_difference(first, second) < 1e-4, name


def test_random_words_are_those_of_the_cpu(sides: dict[str, Side]) -> None:
    """Exactly. torch_xla's ``>>`` rounds negative numbers towards zero, which gives other noise without an error."""
    assert sides['xla'][1]['words'] == sides['cpu'][1]['words']


def test_no_step_compiles_after_the_second(sides: dict[str, Side]) -> None:
    found = sides['xla'][1]
    compiled = found['compiled']
    assert len(compiled) == runs.ITERS and compiled[1] == compiled[-1] > 0, compiled
    assert found['on_host'][1] == {}, 'computed or read on the host in the middle of training'
    drawing = found['compiled_drawing']
    assert drawing[1] == drawing[0] and drawing[3] == drawing[2], 'a second batch of images compiles again'


def test_images_are_those_of_the_cpu(sides: dict[str, Side]) -> None:
    """Two samplers of 3 steps with guidance, one of them with noise in each step, each on its own trained weights."""
    first, second = (torch.load(place / 'drawn.pt', weights_only=True) for place, _ in sides.values())
    assert largest_difference(first, second) < 1e-4
    assert all(value.std() > 0.1 for value in first.values())


@pytest.mark.parametrize('kind', [*runs.OTHERS])
def test_energies_and_mar_are_those_of_the_cpu(everything: Side, kind: str) -> None:
    """Losses with second derivatives, weights, images. Nothing is compiled after the second step; a batch of images compiles
    nothing after the second, and one program with an inner loop."""
    folder, found = everything[0] / 'xla' / kind, everything[1][kind]
    expected = runs.OTHERS[kind](everything[0] / 'cpu' / kind, 'base')
    assert len(found['losses']) == runs.ITERS and found['losses'] == pytest.approx(expected['losses'], rel=1e-4)
    other = everything[0] / 'cpu' / kind
    for name in ('model', 'ema'):
        first, second = (load_file(place / f'run/checkpoints/iter_4/{name}.safetensors') for place in (folder, other))
        assert largest_difference(first, second) < 1e-4, name
    images, theirs = (torch.load(place / 'drawn.pt', weights_only=True) for place in (folder, other))
    assert largest_difference(images, theirs) < 1e-3
    compiled, drawing = found['compiled'], found['compiled_drawing']
    assert compiled[1] == compiled[-1] > 0 and drawing[2] - drawing[1] <= (kind == 'energies'), (compiled, drawing)
    if kind == 'mar':
        first, *_, third, _ = found['on_host']  # the counters of the process
        assert first == third, 'computed or read on the host in the middle of training'
