"""Runs that the page is tried on: a tokenizer, generators, one that draws layouts, a segmenter; trained once, in seconds."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import small_runs as small_runs  # a fixture
from tests.once import once
from tests.runners.support import commands_here

LAYOUT = ['iters=30', 'batch_size=8', '.trainer.optimizers.denoiser.lr=3e-3', '.validator.dataset.count=4']


@pytest.fixture(scope='session')
def page_runs(small_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory, with copies of dry runs in its ``work_dirs``: tok, kl, gen, ic, boxes, seg."""
    from vq.cli.train import main as train

    def make(folder: Path) -> None:
        shutil.copytree(small_runs / 'work_dirs/dry_run', folder / 'work_dirs/dry_run')
        with commands_here(), contextlib.chdir(folder):
            assert train(['boxes', 'layout/digits.py', *LAYOUT]) == 0
            assert train(['seg', 'layout/digits_segmenter.py']) == 0
        for run in (folder / 'work_dirs/dry_run').iterdir():
            shutil.copytree(run, folder / 'work_dirs' / run.name)

    return once(tmp_path_factory, 'page_runs', make)


@pytest.fixture
def among_page_runs(page_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """These runs, in the working directory. Tests only read them."""
    monkeypatch.chdir(page_runs)
    with commands_here(dry=False):
        yield page_runs / 'work_dirs'
