"""Importing the core changes no global state of the process, although importing todd does. Each case is a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(code: str, folder: Path, **environment: str) -> str:
    paths = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': paths, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_log_handlers_stay_and_stay_open(tmp_path):
    run(
        """
import logging
handler = logging.FileHandler('log.txt', mode='w')
logging.basicConfig(handlers=[handler], level=logging.WARNING)
import vq.core.config, vq.core.registry
assert logging.getLogger().handlers == [handler] and logging.getLogger().level == logging.WARNING
logging.warning('still written')
""",
        tmp_path,
    )
    assert 'still written' in (tmp_path / 'log.txt').read_text()


@pytest.mark.slow
def test_breakpoint_stays(tmp_path):
    (tmp_path / 'ipdb.py').write_text('def set_trace(): raise SystemExit(3)')
    run(
        """
import builtins, sys
before = builtins.breakpoint, sys.breakpointhook
import vq.core.config
assert (builtins.breakpoint, sys.breakpointhook) == before
""",
        tmp_path,
    )


@pytest.mark.slow
@pytest.mark.parametrize('value', ['1', 'True', 'yes'])
def test_dry_run_in_any_spelling_does_not_break_the_import(tmp_path, value):
    code = 'import os, vq.core.config; from vq.cli.arguments import dry_run; print(os.environ["DRY_RUN"], dry_run())'
    assert run(code, tmp_path, DRY_RUN=value).split() == [value, 'True']
