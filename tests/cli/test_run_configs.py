"""Every command finds the config of a run by its JSON file, its old Python name, its folder, or the run's name alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runners.support import assert_same, commands_here, everything, said_by, train, write_config
from vq.cli import inference, test, tokenize, val
from vq.cli import train as train_command
from vq.io import runs
from vq.io.shards import ShardSet

LAST = 'checkpoints/iter_4'


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('trained')
    write_config(folder)
    with commands_here(dry=False):
        assert train(str(folder), 'run', 'tiny.py', '--override', '.trainer.iters:4') == 0
    (folder / 'tiny.py').unlink()  # from here on only the run is left
    Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)).save(folder / 'one.png')
    shutil.copy(folder / 'one.png', folder / 'two.png')
    return folder


@pytest.fixture
def home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    with commands_here(dry=False):
        yield tmp_path


def test_what_a_run_keeps(home: Path) -> None:
    run = home / 'work_dirs/run'
    assert (run / 'tiny.json').read_bytes() == (run / LAST / 'config.json').read_bytes()
    assert not list(run.rglob('*.py'))
    assert json.loads((run / LAST / 'spec.json').read_text()) == runs.find('run').spec.as_json()


@pytest.mark.slow
@pytest.mark.parametrize('config', [['work_dirs/run/tiny.json'], ['work_dirs/run/tiny.py'], ['work_dirs/run'], []])
def test_it_validates_tests_and_tokenises(home: Path, capsys: Any, config: list[str]) -> None:
    results = []
    for main, file in ((val.main, f'run/val/{Path(LAST).name}'), (test.main, 'run_test')):
        weights = ['--load-model-from', 'run'] if main is test.main else ['--load-from', 'iter_4']
        said_by(capsys, main, 'run', *config, *weights)
        results.append(json.loads((home / 'work_dirs' / file / 'results.json').read_text()))
    assert results[0]['results']['psnr'] == results[1]['results']['psnr']
    kept = 'tiny.json' if config and config[0].endswith(('.json', '.py')) else 'config.json'
    assert (home / 'work_dirs/run_test' / kept).is_file()
    said_by(capsys, tokenize.main, 'run', *config, '--load-model-from', 'work_dirs/run')
    assert len(ShardSet(home / 'work_dirs/run_tokenize/tokens')) == 180


@pytest.mark.parametrize('words', [['work_dirs/run/tiny.py', 'one.png', 'two.png'], ['one.png', 'two.png'], ['one.png']])
def test_it_looks_at_images(home: Path, capsys: Any, words: list[str]) -> None:
    said = said_by(capsys, inference.main, *words, '--load-model-from', 'run', '--device', 'cpu')
    images = [word for word in words if word.endswith('.png')]
    assert [line.split(':')[0] for line in said.splitlines() if ' tokens, ' in line] == images
    assert len(list((home / 'work_dirs/inference').glob('*_pair.png'))) == len(images)


@pytest.mark.slow
def test_it_trains_the_same_again(home: Path, capsys: Any) -> None:
    said_by(capsys, train_command.main, 'again', 'work_dirs/run/tiny.json')
    assert_same(everything(home / 'work_dirs/run' / LAST), everything(home / 'work_dirs/again' / LAST))
    said_by(capsys, train_command.main, 'again', 'work_dirs/again', '--auto-resume', '--override', '.trainer.iters:6')
    assert runs.find('again').config['trainer']['iters'] == 6


def test_flags_may_stand_before_it(home: Path, capsys: Any) -> None:
    said_by(capsys, val.main, 'run', '--seed', '3', 'work_dirs/run/tiny.json', '--load-from', 'iter_4')
    assert json.loads((home / 'work_dirs/run/val/iter_4/results.json').read_text())['measurement']['seed'] == 3


def test_what_is_said_without_a_run(home: Path, capsys: Any) -> None:
    said = said_by(capsys, val.main, 'rum', code=2)
    assert "CONFIG is left out, and there is no run, checkpoint or file 'rum'; did you mean 'run'?" in said
    (home / 'w').mkdir()
    shutil.copy(home / 'work_dirs/run' / LAST / 'model.safetensors', home / 'w/model.safetensors')
    said = said_by(capsys, test.main, 'x', '--load-model-from', 'w', code=2)
    assert 'is a file, and does not say what config it belongs to' in said
    said = said_by(capsys, val.main, 'run', 'work_dirs/run', '--config-options', 'iters:3', code=2)
    assert "has no option 'iters'" in said and '--override' in said
