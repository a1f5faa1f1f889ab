"""A CONFIG that is not the run's own: the command says so before it measures, and the result records it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runners.support import train, write_config
from vq.cli import test as test_command
from vq.cli import val


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    config = write_config(tmp_path)
    assert train(str(tmp_path), 'run', str(config), '--override', '.trainer.iters:4') == 0
    monkeypatch.chdir(tmp_path)
    return config


def warnings_of(capsys: pytest.CaptureFixture[str]) -> str:
    return ' '.join(line for line in capsys.readouterr().err.splitlines() if 'differs from the config' in line)


@pytest.mark.slow
def test_other_data_are_told_and_recorded(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ['--override', '.validator.dataset.split::train', '--again']
    assert val.main(['run', str(run), *other]) == 0
    assert "validator.dataset.split: 'validation' -> 'train'" in warnings_of(capsys)
    recorded = json.loads(Path('work_dirs/run/val/iter_4/results.json').read_text())['differs_from_run']
    assert recorded == ["validator.dataset.split: 'validation' -> 'train'"]


@pytest.mark.slow
def test_the_same_config_or_none_says_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in ([str(run)], []):
        assert val.main(['run', *given, '--again']) == 0
        assert json.loads(Path('work_dirs/run/val/iter_4/results.json').read_text())['differs_from_run'] == []
    assert test_command.main(['probe', str(run), '--load-model-from', 'work_dirs/run']) == 0
    assert not warnings_of(capsys)


def test_another_part_and_another_run_are_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ['--override', '.trainer.model.losses.l2:dict(type="L1Loss")']
    assert test_command.main(['probe', str(run), '--load-model-from', 'work_dirs/run', *other]) == 0
    assert "validator.model.losses.l2.type: 'MSELoss' -> 'L1Loss'" in warnings_of(capsys)
