"""Runs of version 0.1 still work: they are loaded, resumed, validated and sampled from, with the same results.

Runs and results are in ``tests/fixtures/old``; its README.md describes how they were created. Results are bitwise equal on a
machine with the same arithmetic as the original one, and close on any other.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures.old import facts
from tests.snippets import ROOT, environment
from tools.check_files import MACHINE_PATH
from vq.assembly.compose import compose

pytestmark = pytest.mark.slow

EXPECTED = json.loads(facts.EXPECTED.read_text())
COMPOSED = json.loads(facts.COMPOSED.read_text())
RUNS, OTHERS = EXPECTED['runs'], EXPECTED['others']
# On another kind of machine: the allowed error of a tensor, relative to its change, and the share of tensors that must comply.
# Not all, since a bias before a norm follows rounding errors. With the slowest kernels of the same processor 80 % of the
# tensors had errors of at most 0.0004.
FAR, MOST = 0.02, 0.8


class Place:
    """A folder with copies of old runs, and a shell in it."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        # the warm process has the number of threads that this process had at its start
        self.programs = programs if os.environ.get('OMP_NUM_THREADS') == '1' else None
        shutil.copytree(facts.USER, folder / 'user', ignore=shutil.ignore_patterns('__pycache__'))

    def bring(self, *names: str) -> None:
        for name in names:
            facts.unpack(name, self.folder)

    def run(self, line: str) -> str:
        found = environment(self.programs) | {'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'passive', 'CUDA_VISIBLE_DEVICES': ''}
        for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'):
            found.pop(name, None)
        done = subprocess.run(['bash', '-euc', line], cwd=self.folder, env=found, capture_output=True, text=True)
        assert done.returncode == 0, f'{line}\nexit code {done.returncode}\n{done.stdout}\n{done.stderr}'
        return done.stdout + done.stderr

    def reference(self, name: str, fact: str) -> facts.Tensors:
        tensors = load_file(self.folder / facts.REFERENCE / f'{name}.safetensors')
        return {key.removeprefix(f'{fact}/'): value for key, value in tensors.items() if key.startswith(f'{fact}/')}

    def compare(self, name: str, fact: str, digests: dict[str, str], found: facts.Tensors, start: Any = None) -> None:
        """Compare bitwise on a machine with the same arithmetic, and approximately on others."""
        near(found, self.reference(name, fact), start or {}, f'{name}, {fact}')
        if same_machine():
            assert facts.digest(found) == digests[fact], f'{name}, {fact}: near, and not the same bits'


@pytest.fixture
def place(tmp_path: Path, warm_programs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The working directory, with one thread."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Place(tmp_path, warm_programs)
    torch.set_num_threads(threads)


@functools.cache
def same_machine() -> bool:
    here, there = {**facts.machine(), 'threads': 1}, EXPECTED['machine']
    if here != there:
        warnings.warn(f'results are compared with a tolerance: they were made by {there}, this is {here}', stacklevel=2)
    return here == there


def near(found: facts.Tensors, expected: facts.Tensors, start: facts.Tensors, where: str) -> None:
    """Changes of floats from ``start`` are nearly as expected, pixels are nearly equal, most tokens are equal."""
    assert found.keys() == expected.keys(), f'{where}: {found.keys() ^ expected.keys()}'
    off = {}
    for name, value in found.items():
        other = expected[name]
        assert value.shape == other.shape, f'{where}, {name}: {value.shape} and {other.shape}'
        if value.is_floating_point():
            gone = value.double() - start[name].double() if name in start else value.double()
            off[name] = float((gone - other.double()).norm() / other.double().norm().clamp_min(1e-6))
        elif name == 'images':
            assert value.dtype == other.dtype == torch.uint8
            assert (value.float() - other.float()).abs().mean() < 4, f'{where}: other images'
        else:
            assert value.dtype == other.dtype
            assert (value == other).double().mean() > 0.9, f'{where}, {name}: other numbers'
    far = {name: value for name, value in off.items() if value > FAR}
    assert len(far) <= (1 - MOST) * len(off), f'{where}: {len(far)} of {len(off)} tensors are far off: {far}'


def near_figures(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() >= expected.keys()
    for name, value in expected.items():
        assert found[name] == (value if same_machine() else pytest.approx(value, rel=0.02, abs=0.02)), name


# runs


@pytest.mark.parametrize('name', [*RUNS, *OTHERS, 'converted', 'user'])
def test_an_archive_names_no_place_of_a_machine(name: str, place: Place) -> None:
    place.bring(name)
    files = [path for folder in ('work_dirs', 'converted', facts.REFERENCE) for path in (place.folder / folder).rglob('*')]
    assert not [path for path in files if path.is_file() and MACHINE_PATH.search(path.read_bytes())]


@pytest.mark.parametrize('name', RUNS)
def test_a_run_is_as_it_was_left(name: str, place: Place) -> None:
    place.bring(name)
    for step, parts in RUNS[name]['stored'].items():
        found = facts.checkpoint(place.folder / RUNS[name]['folder'] / 'checkpoints' / step)
        assert {part: facts.digest(tensors) for part, tensors in found.items()} == parts


@pytest.mark.parametrize('name', RUNS)
def test_resumes(name: str, place: Place) -> None:
    """Four more steps: weights, averages, optimizers, random numbers, the order of data."""
    run = RUNS[name]
    place.bring(name, *run['needs'])
    checkpoints = place.folder / run['folder'] / 'checkpoints'
    start = facts.checkpoint(checkpoints / 'iter_8')
    said = place.run(run['resume'])
    assert 'at step 8' in said
    found = facts.checkpoint(checkpoints / 'iter_12')
    assert found.keys() == start.keys()
    for part, tensors in found.items():
        place.compare(name, f'resumed/{part}', run['digests'], tensors, start[part])
    if name == 'counted':
        assert (checkpoints.parent / 'steps.txt').read_text() == '12\n', "the state of a user's callback"


@pytest.mark.parametrize('name', RUNS)
def test_validates(name: str, place: Place) -> None:
    run = RUNS[name]
    place.bring(name, *run['needs'])
    place.run(run['validate'])
    near_figures(facts.figures(place.folder / run['folder'] / 'val/iter_8/results.json'), run['figures'])


@pytest.mark.parametrize('name', RUNS)
def test_loads(name: str, place: Place) -> None:
    """From Python: tokens or latents and images, drawn images, features."""
    run = RUNS[name]
    place.bring(name, *run['needs'])
    place.compare(name, 'loaded', run['digests'], facts.loaded(run['folder'], run['kind']))


# what was made with them


def test_tokens_are_read(place: Place) -> None:
    place.bring('shards')
    place.compare('shards', 'shards', OTHERS['shards']['digests'], facts.shards(place.folder / OTHERS['shards']['folder']))


@pytest.mark.parametrize('name', OTHERS)
def test_what_is_written_again_is_the_same(name: str, place: Place) -> None:
    """Tokens and drawn images. The same command in a folder of old results adds nothing."""
    other = OTHERS[name]
    place.bring(*other['needs'])
    place.run(other['line'])
    folder, read = place.folder / other['folder'], {'shards': facts.shards, 'drawn': facts.drawn}[name]
    shutil.move(folder, place.folder / 'made')
    place.bring(name)
    place.compare(name, name, other['digests'], read(place.folder / 'made'))
    files = {path: path.read_bytes() for path in folder.rglob('*.safetensors')}
    assert files
    place.run(other['line'])
    assert {path: path.read_bytes() for path in folder.rglob('*.safetensors')} == files


def test_a_converted_file_loads(place: Place) -> None:
    place.bring('converted')
    converted = EXPECTED['converted']
    place.compare('converted', 'loaded', converted['digests'], facts.loaded(converted['file'], 'tokenizer'))


# configs of users


@pytest.mark.parametrize('file', COMPOSED)
def test_a_users_config_composes(file: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules of ``benchmarks/same.py`` normalize settings that have another form since then."""
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    rules, worker = importlib.import_module('_same_rules'), importlib.import_module('_same_worker')
    context = rules.Context(file, dict.fromkeys(('old', 'new'), worker.defaults()))
    for case in COMPOSED[file]:
        found = rules.normal(worker.encoded(compose(f'user/{file}.py', case['options'], {}, tiny=False)))
        different = rules.differences(rules.normal(tagged(case['config'])), found)
        left = [
            one
            for one in rules.remaining(different, context)
            if one.path not in ('trainer.callbacks.git', 'trainer.callbacks.progress')
        ]
        assert not left, case['options']


def tagged(value: Any) -> Any:
    """Tuples as ``benchmarks/same.py`` marks them."""
    if isinstance(value, dict):
        return {'(tuple)' if set(value) == {'tuple'} else key: tagged(item) for key, item in value.items()}
    return [tagged(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize('file', EXPECTED['user']['runs'])
def test_a_users_config_trains(file: str, place: Place) -> None:
    run = EXPECTED['user']['runs'][file]
    place.bring('user')
    place.run(run['line'])
    for part, tensors in facts.checkpoint(place.folder / run['folder'] / 'checkpoints/iter_8').items():
        place.compare('user', f'{file}/{part}', EXPECTED['user']['digests'], tensors)
