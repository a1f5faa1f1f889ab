"""Which start of a launch may do what with the run's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runners.support import logged, samples, train, write_config
from vq.cli import restarts
from vq.io import history


@pytest.fixture(autouse=True)
def _bare(bare_environment):
    """No launcher."""


def launched(monkeypatch: pytest.MonkeyPatch, name: str, attempt: int, most: int = 3) -> None:
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', name)
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', str(attempt))
    monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', str(most))


def test_only_a_later_start_of_the_same_launch_has_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = tmp_path / 'run'
    launched(monkeypatch, 'a', 1)
    assert not restarts.has_begun(run)  # the first start died before it made the folder
    launched(monkeypatch, 'a', 0)
    restarts.note(run, None)
    assert not restarts.has_begun(run)
    launched(monkeypatch, 'a', 1)
    assert restarts.has_begun(run)
    launched(monkeypatch, 'b', 1)
    assert not restarts.has_begun(run)
    launched(monkeypatch, 'a', 1, most=0)
    assert not restarts.has_begun(run)


def test_without_restarts_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    restarts.note(tmp_path / 'run', None)
    launched(monkeypatch, 'a', 0, most=0)
    restarts.note(tmp_path / 'run', None)
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_a_restart_that_never_owned_the_run_is_refused_like_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rank 1 died before rank 0 had looked: the finished run of that name is not this launch's to go on with."""
    config = str(write_config(tmp_path))
    assert train(str(tmp_path), 'run', config, '--config-options', 'iters:4') == 0
    launched(monkeypatch, 'a', 1)
    assert train(str(tmp_path), 'run', config) == 2
    assert 'the run work_dirs/run exists already' in capsys.readouterr().err


@pytest.mark.slow
def test_a_restart_after_load_from_does_not_take_the_branch_that_was_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first start goes back to step 2 and dies before it has written anything: so does the next, not to step 8."""
    config, run = str(write_config(tmp_path)), tmp_path / 'work_dirs/run'
    assert train(str(tmp_path), 'run', config, '--config-options', 'save_every:2') == 0
    launched(monkeypatch, 'a', 0)
    restarts.note(run, 'iter_2')
    assert history.latest(run / 'checkpoints') == run / 'checkpoints/iter_2'
    launched(monkeypatch, 'a', 1)
    before = samples(run)
    assert train(str(tmp_path), 'run', config, '--load-from', 'iter_6', '--config-options', 'save_every:4') == 0
    assert 'resumed work_dirs/run/checkpoints/iter_2 at step 2' in (run / 'log.txt').read_text()
    assert samples(run) == before and [line['step'] for line in logged(run) if line['kind'] == 'train'] == [3, 6, 8]


@pytest.mark.slow
def test_auto_resume_without_a_checkpoint_begins_its_log_anew(tmp_path: Path) -> None:
    config, run = str(write_config(tmp_path)), tmp_path / 'work_dirs/run'
    run.mkdir(parents=True)
    (run / 'log.jsonl').write_text('{"step": 3, "kind": "train"}\n')
    assert train(str(tmp_path), 'run', config, '--auto-resume') == 0
    assert [line['step'] for line in logged(run) if line['kind'] == 'train'] == [3, 6, 8]
