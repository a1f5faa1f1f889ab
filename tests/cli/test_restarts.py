"""Starts of a launch, and their rights on the run's folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from tests.runners.support import logged, samples, train, write_config
from vq.cli import restarts
from vq.io import history

Launch = Callable[..., None]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher."""
    for name in [*filter(lambda name: name.startswith('TORCHELASTIC_'), os.environ), 'MASTER_ADDR', 'MASTER_PORT']:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Launch:
    """A launch with its agents' store. This process is a rank of it, on a node with the given count of restarts."""
    stores: dict[str, TCPStore] = {}

    def begin(name: str, restarts: int = 0, most: int = 3, run: str = 'none') -> None:
        if name not in stores:
            stores[name] = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
        monkeypatch.setenv('TORCHELASTIC_USE_AGENT_STORE', 'True')
        monkeypatch.setenv('TORCHELASTIC_RUN_ID', run)
        monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', str(restarts))
        monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', str(most))
        monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
        monkeypatch.setenv('MASTER_PORT', str(stores[name].port))

    return begin


def note(folder: Path, load_from: str | None = None) -> None:
    restarts.note(folder, restarts.find_launch(), load_from)


def has_begun(folder: Path) -> bool:
    return restarts.has_begun(folder, restarts.find_launch())


@pytest.mark.slow
@pytest.mark.parametrize('count', [0, 1])
@pytest.mark.parametrize('most', [0, 3])
def test_a_later_start_of_the_same_launch_has_begun_whatever_its_node_counts(
    launch: Launch, tmp_path: Path, count: int, most: int
) -> None:
    run = tmp_path / 'run'
    launch('a', count, most)
    assert not has_begun(run)  # the first start died before it made the folder
    note(run)
    assert has_begun(run)
    launch('b', count, most)
    assert not has_begun(run)
    launch('a', count, most, run='another')
    assert not has_begun(run)


def test_without_the_agents_store_a_launch_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv('TORCHELASTIC_USE_AGENT_STORE', 'False')
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'job 7')
    note(tmp_path)
    assert has_begun(tmp_path)
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'job 8')
    assert not has_begun(tmp_path)


def test_without_a_launcher_nothing_is_left_behind(tmp_path: Path) -> None:
    assert not has_begun(tmp_path / 'run')
    note(tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_overwrite_deletes_nothing_in_a_later_start_whose_node_has_counted_no_restart(launch: Launch, tmp_path: Path) -> None:
    """Under torchrun a rank of node 1 has died: node 0 starts its ranks again and still counts 0."""
    config, run = str(write_config(tmp_path)), tmp_path / 'work_dirs/run'
    assert train(str(tmp_path), 'run', config, '--config-options', 'iters:6', 'save_every:2') == 0
    launch('a')
    assert train(str(tmp_path), 'run', config, '--overwrite', '--config-options', 'iters:4') == 0
    assert not (run / 'checkpoints/iter_6').exists()  # the first start overwrites
    launch('a')
    assert train(str(tmp_path), 'run', config, '--overwrite') == 0
    assert 'resumed work_dirs/run/checkpoints/iter_4 at step 4' in (run / 'log.txt').read_text()
    launch('b')
    assert train(str(tmp_path), 'run', config, '--overwrite', '--config-options', 'iters:3') == 0
    assert not (run / 'checkpoints/iter_4').exists()


@pytest.mark.slow
def test_a_restart_that_never_owned_the_run_is_refused_like_the_first(
    launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rank 1 died before rank 0 opened the folder: the finished run of that name does not belong to this launch."""
    config = str(write_config(tmp_path))
    assert train(str(tmp_path), 'run', config, '--config-options', 'iters:4') == 0
    launch('a', 1)
    assert train(str(tmp_path), 'run', config) == 2
    assert 'the run work_dirs/run exists already' in capsys.readouterr().err


@pytest.mark.slow
def test_a_restart_after_load_from_does_not_take_the_branch_that_was_left(launch: Launch, tmp_path: Path) -> None:
    """The first start goes back to step 2 and dies before it writes anything. The restart resumes at step 2, not 8."""
    config, run = str(write_config(tmp_path)), tmp_path / 'work_dirs/run'
    assert train(str(tmp_path), 'run', config, '--config-options', 'save_every:2') == 0
    launch('a')
    note(run, 'iter_2')
    assert history.latest(run / 'checkpoints') == run / 'checkpoints/iter_2'
    launch('a', 1)
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
