"""Damaged checkpoints are named in the first lines with the steps that are lost, and no log is deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vq.loading
from tests.runners.support import everything_in, said_by
from vq.cli import test, train, val
from vq.io import history

RUN = ('run', 'tiny.py')
LENGTH = ('--config-options', 'iters:4', 'save_every:2')


@pytest.fixture
def run(home: Path) -> Path:
    return home / 'work_dirs/run'


def damage(run: Path, step: int, name: str = 'model.safetensors') -> None:
    file = run / f'checkpoints/iter_{step}' / name
    file.write_bytes(file.read_bytes()[:-1])


def set_aside(run: Path) -> Path:
    (folder,) = run.glob('old_*')
    return folder


def test_without_an_intact_checkpoint_auto_resume_refuses_and_changes_nothing(run: Path, capsys: Any) -> None:
    for step in (2, 4):
        damage(run, step)
    before = everything_in(run)
    said = said_by(capsys, train.main, *RUN, '--auto-resume', *LENGTH, code=2)
    first, hint = said.splitlines()[0], said.splitlines()[-1]
    assert first.startswith('error: the run work_dirs/run has no intact checkpoint to go on from, so 4 steps would be lost')
    assert 'iter_4 is damaged (model.safetensors has ' in first and '--overwrite' in hint
    assert everything_in(run) == before


def test_overwrite_sets_damaged_checkpoints_and_the_log_aside(run: Path, capsys: Any) -> None:
    damage(run, 4)
    log, model = (run / 'log.jsonl').read_bytes(), (run / 'checkpoints/iter_4/model.safetensors').read_bytes()
    said = said_by(capsys, train.main, *RUN, '--overwrite', '--config-options', 'iters:3')
    assert 'the earlier run work_dirs/run is deleted; its log, and what was damaged, is in work_dirs/run/old_' in said
    kept = set_aside(run)
    assert sorted(path.name for path in kept.iterdir()) == ['iter_4', 'log.jsonl', 'tensorboard']
    assert (kept / 'log.jsonl').read_bytes() == log and (kept / 'iter_4/model.safetensors').read_bytes() == model
    assert [path.name for _, path in history.list_complete(run / 'checkpoints')] == ['iter_3']


@pytest.mark.slow
@pytest.mark.parametrize('how', ['shortened', 'deleted', 'without its marker'])
def test_an_older_checkpoint_is_taken_with_words(run: Path, capsys: Any, how: str) -> None:
    if how == 'deleted':
        for path in (run / 'checkpoints/iter_4').iterdir():
            path.unlink()
        (run / 'checkpoints/iter_4').rmdir()
    elif how == 'shortened':
        damage(run, 4)
    else:
        (run / 'checkpoints/iter_4/COMPLETE').unlink()
    log = (run / 'log.jsonl').read_bytes()
    said = said_by(capsys, train.main, *RUN, '--auto-resume', *LENGTH)
    assert '2 steps are lost: work_dirs/run/checkpoints/iter_4 is damaged (' in said.splitlines()[0]
    assert 'Training goes on from work_dirs/run/checkpoints/iter_2' in said.splitlines()[0]
    assert (set_aside(run) / 'log.jsonl').read_bytes() == log
    assert (set_aside(run) / 'iter_4').is_dir() == (how != 'deleted')
    assert history.latest(run / 'checkpoints') == run / 'checkpoints/iter_4'  # written again
    assert 'lost' not in said_by(capsys, train.main, *RUN, '--auto-resume', *LENGTH)


def test_content_that_changed_is_told_with_the_way_back(run: Path, capsys: Any) -> None:
    file = run / 'checkpoints/iter_4/training.pt'
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    said = said_by(capsys, train.main, *RUN, '--auto-resume', *LENGTH, code=2)
    assert 'training.pt is damaged' in said
    assert said.splitlines()[-1].startswith('--load-from iter_2 in place of --auto-resume goes back 2 steps')
    said = said_by(capsys, train.main, *RUN, '--load-from', 'iter_2', *LENGTH)
    assert 'at step 2' in said and set_aside(run) / 'log.jsonl'


@pytest.mark.slow
def test_readers_of_the_run_say_it_too(run: Path, capsys: Any) -> None:
    damage(run, 4)
    told = 'work_dirs/run/checkpoints/iter_4 is damaged (model.safetensors has '
    said = said_by(capsys, val.main, *RUN)
    assert f'not validated: {told}' in said
    said = said_by(capsys, test.main, *RUN, '--load-model-from', 'run')
    assert told in said and 'iter_2 is taken in its place, which has 2 steps less' in said
    vq.loading.load('run')
    assert told in capsys.readouterr().err
    damage(run, 2)
    assert told in said_by(capsys, val.main, *RUN, code=2)


def test_the_log_of_a_run_without_a_checkpoint_is_set_aside(home: Path, capsys: Any) -> None:
    run, line = home / 'work_dirs/other', '{"step": 3, "kind": "train"}\n'
    run.mkdir()
    (run / 'log.jsonl').write_text(line)
    said = said_by(capsys, train.main, 'other', 'tiny.py', '--auto-resume', '--config-options', 'iters:3')
    assert 'no checkpoint of work_dirs/other was written yet' in said.splitlines()[0]
    assert (set_aside(run) / 'log.jsonl').read_text() == line
    assert [json.loads(text)['step'] for text in (run / 'log.jsonl').read_text().splitlines() if '"train"' in text] == [3]


def test_a_run_is_resumed_without_its_config(run: Path, capsys: Any) -> None:
    said = said_by(capsys, train.main, 'run', '--auto-resume')
    assert 'resumed work_dirs/run/checkpoints/iter_4 at step 4' in said
    said = said_by(capsys, train.main, 'other', code=2)
    assert 'CONFIG is needed to start a run' in said and 'resume the run with --auto-resume' in said


def test_overwrite_clears_what_the_old_run_logged(run: Path, capsys: Any) -> None:
    """TensorBoard would show both runs."""
    (run / 'backends/tensorboard').mkdir(parents=True)
    (run / 'backends/tensorboard/events.out').touch()
    said_by(capsys, train.main, *RUN, '--overwrite', *LENGTH)
    assert not (run / 'backends').exists()
