"""``benchmarks/gpu.py``: ``--quick`` runs every part on the CPU, and a failure of a part does not affect the others."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.snippets import ROOT, environment
from tests.warm import programs

PARTS = ['tests', 'search', 'train', 'vqkd', 'sampling', 'diffusion', 'nccl', 'precision', 'graphs']

# A worker with parts that fail in every possible way. SIGALRM ends the time of a part.
WORKER = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
from _gpu_running import work

def good(record):
    record.row('speed', 2.0, 'x')

def raises(record):
    record.row('before', 1.0, 'x')
    raise ValueError('first line\\nsecond line')

def unequal(record):
    raise SystemExit('one and other: the two sides do not agree; nothing was timed')

def killed(record):
    record.row('before', 1.0, 'x')
    os.kill(os.getpid(), signal.SIGKILL)

def slow(record):
    record.row('before', 1.0, 'x')
    record.may('more', 60.0, lambda: record.row('never', 1.0, 'x'))
    record.may('longer', 0.1, lambda: time.sleep(60))
    time.sleep(60)

def deaf(record):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(60)

functions = dict(good=good, raises=raises, unequal=unequal, killed=killed, slow=slow, deaf=deaf, last=good)
parts = {{name: (functions[name], 6.0) for name in sys.argv[2].split(',')}}
work(parts, Path(sys.argv[1]), False, 'cpu', time.time() + 600)
"""


def helper(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    return importlib.import_module(name)


@pytest.mark.slow
def test_the_quick_form_does_every_part_on_the_cpu(tmp_path: Path) -> None:
    for package in ('transformers', 'diffusers'):
        pytest.importorskip(package)
    output = tmp_path / 'gpu.json'
    command = [programs() / 'python', str(ROOT / 'benchmarks' / 'gpu.py'), '--quick', '--output', str(output)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, f'{done.stdout}\n{done.stderr}'
    *text, last = done.stdout.splitlines()
    found = json.loads(last)
    assert output.read_text() == f'{last}\n'
    assert found['equal'] and found['failed'] == [] and found['device']['name'] == 'CPU'
    parts = found['parts']
    assert [*parts] == PARTS
    assert {name: part['status'] for name, part in parts.items()} == dict.fromkeys(PARTS, 'ok')
    assert all(part['rows'] for part in parts.values())
    table = text[text.index('CPU') :]
    for name, part in parts.items():
        assert sum(line.startswith(f'{name}: ') for line in table) == len(part['rows']) + len(part['notes'])
    assert parts['tests']['figures']['counts'] == {'passed': 0, 'failed': 0, 'skipped': parts['tests']['rows'][1]['figure']}
    assert parts['nccl']['figures']['backend'] == 'gloo'
    assert {'ours', 'HF'} == set(parts['sampling']['figures']['batch 1, against HF'])
    learned, drawn = parts['diffusion']['rows']
    assert learned['roof'] > 0 and drawn['peer'] > 0 and drawn['ratio'] > 0
    assert {'ours', 'diffusers'} == set(parts['diffusion']['figures']['sampling eager'])
    lines = [row['what'] for row in parts['train']['rows']]
    assert any(what.startswith('no GAN') for what in lines) and any('largest batch' in what for what in lines)
    assert all(row['roof'] > 0 for row in parts['train']['rows'])
    assert len(parts['precision']['figures']['curves']['fp16']) == 6
    assert max(row['figure'] for row in parts['precision']['rows'][1:]) < 5, 'per cent'
    assert 'the step with CUDA graphs: needs a GPU' in parts['graphs']['notes']
    assert all(row['met'] is None for part in parts.values() for row in part['rows']), 'aims are for a GPU'


@pytest.mark.slow
def test_parts_survive_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = helper(monkeypatch, '_gpu_running')
    monkeypatch.setattr(running, 'GRACE', 1.0)
    script = tmp_path / 'worker.py'
    script.write_text(WORKER.format(benchmarks=str(ROOT / 'benchmarks')))
    names = ['good', 'raises', 'unequal', 'killed', 'slow', 'deaf', 'last']
    begun = time.time()
    found = running.supervise([sys.executable, str(script), str(tmp_path)], names, begun + 600, tmp_path)
    assert time.time() - begun < 120, 'no part took longer than it may'
    assert [*found] == names
    assert {name: state['status'] for name, state in found.items() if state['status'] != 'failed'} == {
        'good': 'ok',
        'last': 'ok',
    }
    assert found['raises']['error'] == 'ValueError: first line\nsecond line' and 'raises' in found['raises']['traceback']
    assert found['unequal']['error'].startswith('one and other')
    assert found['killed']['error'] == 'its process was ended by SIGKILL'
    assert found['slow']['error'] == 'its time was up'
    left_out, given_up = found['slow']['notes']
    assert left_out.startswith('more: left out') and given_up.startswith('longer: given up')
    assert found['deaf']['error'] == 'it did not react to the end of its time, and was killed'
    for name in ('raises', 'killed', 'slow'):
        assert [row['what'] for row in found[name]['rows']] == ['before'], 'what was found before is kept'


@pytest.mark.slow
def test_a_worker_that_cannot_begin_fails_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = helper(monkeypatch, '_gpu_running')
    command = [sys.executable, '-c', 'raise SystemExit(3)']
    found = running.supervise(command, ['a', 'b'], time.time() + 60, tmp_path)
    assert {name: (state['status'], state['error']) for name, state in found.items()} == dict.fromkeys(
        'ab', ('failed', 'its process ended with code 3')
    )


@pytest.mark.slow
def test_a_test_that_fails_fails_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests, running = helper(monkeypatch, '_gpu_tests'), helper(monkeypatch, '_gpu_running')
    script = tmp_path / 'test_marked.py'
    mark = 'gpu'  # written so, this file is none of those that are marked
    marked = f'import pytest\npytestmark = pytest.mark.{mark}\n'
    script.write_text(f'{marked}def test_good(): pass\ndef test_bad():\n    assert 1 == 2, "one is not two"\n')
    monkeypatch.setattr(tests, 'marked_files', lambda: [str(script)])
    record = running.Record(tmp_path / 'tests.json', True, SimpleNamespace(type='cpu'), time.time() + 60)
    with pytest.raises(AssertionError, match=r'1 of 2 tests failed, the first .*test_bad'):
        tests.run_tests(record)
    assert record.figures['counts'] == {'passed': 1, 'failed': 1, 'skipped': 0}
    assert 'one is not two' in str(record.figures['failures'])
    monkeypatch.setattr(tests, 'marked_files', lambda: [str(tmp_path / 'none.py')])
    with pytest.raises(RuntimeError, match=r'none\.py'):
        tests.run_tests(record)


def test_without_time_parts_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = helper(monkeypatch, '_gpu_running')
    found = running.supervise(['never started'], ['a', 'b'], time.time() + 1, tmp_path)
    assert [state['status'] for state in found.values()] == ['skipped', 'skipped']
    record = running.Record(tmp_path / 'a.json', False, 'cpu', time.time() + 1)
    assert running.attempt(lambda record: pytest.fail('it began'), record)
    assert running.read(tmp_path, 'a')['status'] == 'skipped'


@pytest.mark.parametrize(
    ('numbers', 'aim', 'quick', 'met'),
    [
        ({'ratio': 2.0}, ('ratio', 2.0), False, True),
        ({'ratio': 1.9}, ('ratio', 2.0), False, False),
        ({'ratio': 9.0}, ('ratio', 2.0), True, None),
        ({'roof': 0.59}, ('roof', 0.6), False, False),
        ({}, ('figure', 5.0, True), False, True),
        ({}, ('figure', 2.0, True), False, False),
        ({}, ('ratio', 2.0), False, None),
        ({}, None, False, None),
    ],
)
def test_aims(
    numbers: dict[str, float], aim: tuple[Any, ...] | None, quick: bool, met: bool | None, tmp_path: Path, monkeypatch: Any
) -> None:
    running = helper(monkeypatch, '_gpu_running')
    record = running.Record(tmp_path / 'a.json', quick, 'cpu', time.time())
    record.row('speed', 3.0, 'images/s', **numbers, aim=None if aim is None else running.Aim(*aim))
    (row,) = running.read(tmp_path, 'a')['rows']
    assert row['met'] is met


def test_a_failed_part_stands_in_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gpu = helper(monkeypatch, 'gpu')
    row = {'what': 'batch 1', 'unit': 'ms', 'figure': 2.5, 'peer': 5.0, 'ratio': 2.0, 'roof': 0.5, 'aim': 'ratio >= 2'}
    results = {
        'search': {'status': 'ok', 'rows': [{**row, 'met': True}], 'notes': ['a note']},
        'train': {'status': 'failed', 'rows': [{**row, 'met': False}], 'notes': [], 'error': 'ValueError: one\ntwo'},
        'graphs': {'status': 'skipped', 'rows': [], 'notes': [], 'error': 'no time'},
    }
    gpu.report('CARD', results)
    lines = [' '.join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert 'CARD' in lines
    assert 'search: batch 1 2.5 ms 5 ms 2 x 50 % ratio >= 2 yes' in lines
    assert 'train: batch 1 2.5 ms 5 ms 2 x 50 % ratio >= 2 no' in lines
    assert 'train: FAILED: ValueError: one - - - - - -' in lines
    assert 'graphs: SKIPPED: no time - - - - - -' in lines
    assert 'search: a note' in lines


def test_parts_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gpu = helper(monkeypatch, 'gpu')
    assert [*gpu.PARTS] == PARTS
    assert gpu.options_of([]).parts == PARTS
    assert gpu.options_of(['--parts', 'train,search']).parts == ['search', 'train']
    with pytest.raises(SystemExit, match='2'):
        gpu.options_of(['--parts', 'trian'])
    assert "there is no part 'trian'" in capsys.readouterr().err


def test_every_test_that_is_marked_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    files = helper(monkeypatch, '_gpu_tests').marked_files()
    assert 'tests/quantizers/test_search_cuda.py' in files
    assert all((ROOT / path).is_file() for path in files) and Path(__file__).name not in ' '.join(files)
