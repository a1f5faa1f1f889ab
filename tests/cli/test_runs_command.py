"""``vq runs``: what it says about runs, and which checkpoints it deletes. The runs are written here, byte by byte."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runners.support import commands_here, everything_in, said_by
from tests.sources import ROOT
from vq.cli.runs import main
from vq.io import run_lock
from vq.io.run_list import list_runs

Figures = dict[str, float]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'work_dirs').mkdir()
    with commands_here(dry=False):
        yield tmp_path / 'work_dirs'


def checkpoint(run: Path, step: int, size: int = 100, frozen: dict[str, str] | None = None, **figures: float) -> Path:
    """A complete checkpoint with ``size`` bytes of weights. The config is the newest one of the run."""
    place = run / f'checkpoints/iter_{step}'
    place.mkdir(parents=True)
    with open(place / 'model.safetensors', 'wb') as file:
        file.write(f'{run.name} {step}'.encode())
        file.truncate(size)
    config = next(run.glob('*.json')).read_text()
    (place / 'config.json').write_text(config)
    kind = 'generator' if 'generator' in config else 'tokenizer'
    (place / 'spec.json').write_text(json.dumps({'version': 1, 'kind': kind}))
    (place / 'meta.json').write_text(json.dumps({'frozen': frozen or {}}))
    entries = {
        file.name: {'size': file.stat().st_size, 'sha256': None if size > 10**9 else digest(file)} for file in place.iterdir()
    }
    (place / 'COMPLETE').write_text(json.dumps({'format_version': 2, 'files': entries}))
    if figures:
        (place / 'metrics.json').write_text(json.dumps(figures))
    (run / 'checkpoints/latest').write_text(f'iter_{step}\n')
    return place


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def run(root: Path, name: str, steps: dict[int, Figures], iters: int = 40, **more: Any) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    model = {'type': 'ImageTokenization', 'tokenizer': {'type': 'VQGAN'}}
    config = {'trainer': {'iters': iters, 'model': model} | more}
    (folder / 'vq_ema.json').write_text(json.dumps(config))
    lines = [{'step': step, 'kind': 'train', 'l2': 0.1} for step in steps]
    (folder / 'log.jsonl').write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    for step, figures in steps.items():
        checkpoint(folder, step, **figures)
    return folder


def steps_of(folder: Path) -> set[int]:
    return {int(path.name.removeprefix('iter_')) for path in (folder / 'checkpoints').glob('iter_*')}


def test_the_state_of_every_kind_of_run(root: Path) -> None:
    run(root, 'done', {20: {}, 40: {}})
    run(root, 'a/stopped', {20: {}})
    torn = run(root, 'damaged', {20: {}, 30: {}})
    os.truncate(torn / 'checkpoints/iter_30/model.safetensors', 5)
    run(root, 'fresh', {})
    (root / 'fresh/log.jsonl').write_text('{"step": 7, "kind": "train"}\n{"step": 9, "ki')  # killed while writing
    (root / 'empty').mkdir()
    (root / 'done/samples').mkdir()
    run(root / 'dry_run', 'tiny', {8: {}})
    held = run(root, 'held', {20: {}})
    with run_lock.held(held, None):
        found = {one.name: (one.state, one.step, one.checkpoints) for one in list_runs(root)}
    assert found == {
        'done': ('done', 40, 2),
        'a/stopped': ('stopped', 20, 1),
        'damaged': ('damaged', 30, 2),
        'fresh': ('never checkpointed', 7, 0),
        'held': ('running', 20, 1),
    }
    assert {one.name for one in list_runs(root, dry=True)} - set(found) == {'dry_run/tiny'}


def test_a_training_in_another_process_is_seen_until_it_ends(root: Path) -> None:
    """The lock is looked at, not taken: the other process holds it all the time. A killed one holds nothing."""
    folder = run(root, 'one', {20: {}})
    body = (
        'import sys, pathlib; from vq.io import run_lock\n'
        f'with run_lock.held(pathlib.Path({str(folder)!r}), None): print("held", flush=True); sys.stdin.read()'
    )
    other = subprocess.Popen(
        [sys.executable, '-c', body],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == b'held\n'
        assert [one.state for one in list_runs(root)] == ['running'] * 1
        assert run_lock.is_held(folder) and run_lock.is_held(folder)
    finally:
        other.kill()
        other.wait()
    assert not run_lock.is_held(folder) and (folder / 'lock.json').is_file()


def test_figures_come_from_evaluations_and_from_checkpoints(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The best value in the right direction, with its step; of equal ones the first."""
    folder = run(root, 'one', {20: {'psnr': 21.5, 'fid': 30.0, 'name': 1.0}, 40: {'psnr': 20.5, 'fid': 9.5}})
    with open(folder / 'log.jsonl', 'a') as file:
        file.write('{"step": 10, "kind": "eval", "psnr": 21.5, "loss/l2": 0.2, "seconds": 3}\nno line of a journal\n')
        file.write('{"step": 30, "kind": "eval", "psnr": NaN, "fid": "inf", "loss/l2": 0.4}\n')
    (one,) = list_runs(root)
    assert {name: (best.value, best.step) for name, best in one.best.items()} == {
        'psnr': (21.5, 10),
        'fid': (9.5, 40),
        'loss/l2': (0.2, 10),
    }
    assert 'fid 9.5 at 40' in said_by(capsys, main)


def test_the_table_and_the_json_say_the_same(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(root, 'one', {40: {'psnr': 30.0}})
    run(root, 'vqgan/8192', {20: {'psnr': 31.0}})
    os.utime(root / 'one/log.jsonl', (1, 1))
    os.utime(root / 'one/checkpoints/latest', (1, 1))
    (new, old) = json.loads(said_by(capsys, main, '--json'))
    assert (new['name'], old['name']) == ('vqgan/8192', 'one') and old['changed'] == 1
    assert new['size'] == sum(file.stat().st_size for file in (root / 'vqgan/8192').rglob('*') if file.is_file())
    assert new['best'] == {'psnr': {'value': 31.0, 'step': 20}} and new['config'] == 'vq_ema' and new['kind'] == 'tokenizer'
    table = said_by(capsys, main)
    assert table.index('vqgan/8192') < table.index('one') and '20/40' in table and 'psnr 31 at 20' in table
    assert [entry['name'] for entry in json.loads(said_by(capsys, main, '--json', '--sort', 'name'))] == ['one', 'vqgan/8192']
    assert json.loads(said_by(capsys, main, '--json', '--sort', 'psnr'))[0]['name'] == 'vqgan/8192'
    assert [entry['name'] for entry in json.loads(said_by(capsys, main, 'vqgan', '--json'))] == ['vqgan/8192']
    assert [entry['name'] for entry in json.loads(said_by(capsys, main, 'o*', '--json'))] == ['one']


@pytest.mark.slow
def test_a_thousand_runs_are_listed_without_reading_weights(root: Path) -> None:
    """A terabyte of weights (a hole in a file) cannot be read within the limit."""
    first = run(root, 'run_0', {20: {'psnr': 20.0}})
    for number in range(1, 1000):
        folder = root / f'run_{number}'
        folder.mkdir()
        os.link(first / 'log.jsonl', folder / 'log.jsonl')
        os.link(first / 'vq_ema.json', folder / 'vq_ema.json')
        place = folder / 'checkpoints/iter_20'
        place.mkdir(parents=True)
        for file in (first / 'checkpoints/iter_20').iterdir():
            os.link(file, place / file.name)
        os.link(first / 'checkpoints/latest', folder / 'checkpoints/latest')
    large = run(root, 'large', {})
    checkpoint(large, 40, size=10**12)
    began = time.process_time()
    found = list_runs(root)
    assert len(found) == 1001 and time.process_time() - began < 10
    assert next(one for one in found if one.name == 'large').size > 10**12


@pytest.fixture
def family(root: Path) -> Path:
    """A tokenizer with six checkpoints; a generator was trained on the third, by its path, another on a copy of the second."""
    tok = run(root, 'tok', {step: {'psnr': 20 + (step == 20), 'fid': 50.0 - step} for step in (10, 20, 30, 40, 50, 60)}, 60)
    weights = tok / 'checkpoints/iter_30/model.safetensors'
    model = {'generator': {}, 'tokenizer': {'frozen': 1}}
    gen = run(root, 'gen', {}, model=model)
    checkpoint(gen, 40, frozen={os.path.relpath(weights): 'f' * 64})
    moved = run(root, 'dry_run/moved', {}, model=model)
    checkpoint(moved, 40, frozen={'/gone/model.safetensors': digest(tok / 'checkpoints/iter_20/model.safetensors')})
    return tok


@pytest.mark.parametrize(
    ('keep', 'gone'),
    [
        (['last'], {10, 40, 50}),
        (['last:3'], {10}),
        (['every:20'], {10, 50}),
        (['best'], {10, 40, 50}),
        (['best:psnr'], {10, 40, 50}),
        (['every:25', 'last'], {10, 40}),
        (['last,every:10'], set()),
    ],
)
def test_pruning_keeps_what_is_named_and_what_others_need(keep, gone, family: Path, capsys) -> None:
    """Always kept: the latest (60), and those that the two generators were trained on (30 and 20)."""
    before = everything_in(family)
    said = said_by(capsys, main, 'tok', '--prune', '--keep', *keep)
    assert everything_in(family) == before, 'dry by default'
    size = sum(file.stat().st_size for step in gone for file in (family / f'checkpoints/iter_{step}').iterdir())
    unit = f'{size / 1000:.1f} kB' if size >= 1000 else f'{size} B'
    assert f'{len(gone)} checkpoints would be deleted, {unit}. Nothing was deleted: that takes --yes.' in said
    said = said_by(capsys, main, 'tok', '--prune', '--keep', *keep, '--yes')
    assert steps_of(family) == {10, 20, 30, 40, 50, 60} - gone and f'{len(gone)} checkpoints were deleted' in said
    after = everything_in(family)
    lost = tuple(f'checkpoints/iter_{step}' for step in gone)
    assert after == {name: content for name, content in before.items() if not name.startswith(lost or ('\0',))}


def test_the_loops_of_published_scripts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``if (( num % 40000 != 0 )); then rm -r iter_$num``, but the newest one stays."""
    folder = run(root, 'llm', {step: {} for step in range(10_000, 210_000, 10_000)}, 260_000)
    said_by(capsys, main, 'llm', '--prune', '--keep', 'every:40000', '--yes')
    assert steps_of(folder) == {step for step in range(10_000, 210_000, 10_000) if step % 40_000 == 0} | {200_000}


def test_the_best_of_a_run_is_kept_by_the_figure_it_is_listed_with(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(root, 'one', {10: {'psnr': 25.0}, 20: {'psnr': 31.0}, 30: {'psnr': 30.0}})
    unknown = run(root, 'two', {10: {}, 20: {}})
    said = said_by(capsys, main, '*', '--prune', '--keep', 'best', '--yes')
    assert steps_of(folder) == {20, 30} and 'keep  iter_20  (best psnr, 31)' in said
    assert steps_of(unknown) == {10, 20} and 'two: left alone, no checkpoint has figures' in said


def test_what_is_never_deleted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs that train, the only checkpoint, damaged checkpoints, and a tokenizer that only a config names so far."""
    held, single = run(root, 'held', {10: {}, 20: {}}), run(root, 'single', {10: {}})
    torn = run(root, 'torn', {10: {}, 20: {}, 30: {}, 40: {}})
    os.truncate(torn / 'checkpoints/iter_20/model.safetensors', 1)
    frozen = {'tokenizer': {'type': 'FrozenTokenizer', 'weights': 'work_dirs/named/checkpoints/iter_10'}}
    named = run(root, 'named', {10: {}, 20: {}, 30: {}})
    run(root, 'begun', {}, model={'generator': {}, **frozen})
    with run_lock.held(held, None):
        said = said_by(capsys, main, '*', '--prune', '--keep', 'last', '--yes')
    assert steps_of(held) == {10, 20} and 'held: left alone, it is training' in said
    assert steps_of(single) == {10}
    assert steps_of(torn) == {20, 40}, 'the damaged one is left to its owner'
    assert steps_of(named) == {10, 30} and 'keep  iter_10  (begun was trained on it)' in said


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        (['--prune'], 'it names none'),
        (['--prune', '--keep', 'newest'], "--keep 'newest' is not understood"),
        (['--prune', '--keep', 'last:0'], "--keep 'last:0' is not understood"),
        (['--prune', '--keep', 'every'], "--keep 'every' is not understood"),
        (['--prune', '--keep', 'last', '--yes'], 'of all runs'),
        (['--yes'], '--yes belongs to --prune'),
        (['tko'], "did you mean 'tok'?"),
        (['--sort', 'pnsr'], "did you mean 'psnr'?"),
        (['--work-dir', 'nowhere'], 'there is no folder nowhere'),
    ],
)
def test_bad_usage_changes_nothing(words, expected, family: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything_in(family)
    assert expected in said_by(capsys, main, *words, code=2)
    assert everything_in(family) == before
