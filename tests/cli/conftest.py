"""A short finished run with two checkpoints, made once for all tests of what commands do to the folder of a run."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.once import once
from tests.runners.support import commands_here, train, write_config


@pytest.fixture(scope='session')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with ``tiny.py`` and ``work_dirs/run``: checkpoints ``iter_2`` and ``iter_4``."""

    def make(folder: Path) -> None:
        write_config(folder)
        with commands_here(dry=False):
            assert train(str(folder), 'run', 'tiny.py', '--config-options', 'iters:4', 'save_every:2') == 0

    return once(tmp_path_factory, 'finished', make)


@pytest.fixture
def home(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it, as the working directory of commands that run in this process."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for name in ('RANK', 'TORCHELASTIC_RUN_ID', 'VQ_PRETRAINED'):
        monkeypatch.delenv(name, raising=False)
    with commands_here(dry=False):
        yield tmp_path


@pytest.fixture(scope='session')
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with dry runs on digits: tokenizers ``tok`` and ``kl``, a generator ``gen`` on ``tok``,
    a classifier ``ic``. ``tok`` and ``ic`` are validated."""
    from vq.cli.train import main as train_here
    from vq.cli.val import main as validate

    def make(folder: Path) -> None:
        with commands_here(), contextlib.chdir(folder):
            for name, config, *more in (
                ('tok', 'digits/vq_ema.py'),
                ('kl', 'digits/kl.py'),
                ('gen', 'digits/ar.py', '--config-options', 'tokenizer_run::tok'),
                ('ic', 'ic/digits.py'),
            ):
                assert train_here([name, config, *more]) == 0
            assert validate(['tok']) == validate(['ic']) == 0

    return once(tmp_path_factory, 'small_runs', make)


@pytest.fixture
def among_runs(small_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of these runs, as the working directory of commands in this process. Yields their folder."""
    shutil.copytree(small_runs / 'work_dirs', tmp_path / 'work_dirs')
    monkeypatch.chdir(tmp_path)
    with commands_here():
        yield tmp_path / 'work_dirs/dry_run'
