"""The wheel: its content, and that it works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.sources import ROOT, files

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('wheel')
    pip = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--disable-pip-version-check', '--quiet']
    done = subprocess.run([*pip, '--wheel-dir', str(folder), str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (built,) = folder.glob('vq-*.whl')
    return built


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the unpacked wheel, without the checkout."""
    folder = tmp_path_factory.mktemp('site')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith('PYTEST')}
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**environment, 'PYTHONPATH': str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_wheel_holds_the_package_and_the_configs_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {str(path) for path in files('vq')} | {f'vq/{path}' for path in files('configs')}
    assert expected <= names
    assert {name.split('/')[0] for name in names if '.dist-info/' not in name} == {'vq'}
    others = {name for name in names if not name.endswith('.py') and '.dist-info/' not in name}
    assert others == {
        str(path.relative_to(ROOT))
        for path in (ROOT / 'vq').rglob('*.*')
        if path.is_file() and path.suffix not in ('.py', '.pyc')
    }


def test_wheel_brings_license_and_console_script(wheel):
    with zipfile.ZipFile(wheel) as archive:
        texts = {name.rpartition('/')[2]: archive.read(name).decode() for name in archive.namelist() if '.dist-info/' in name}
    for program in ('auto_torchrun = vq.launch.main:main', 'vq = vq.cli.main:main'):
        assert program in texts['entry_points.txt']
    assert 'Apache License' in texts['LICENSE']


def test_packaged_configs_resolve_without_the_checkout(installed, tmp_path):
    where = run(installed, tmp_path, '-c', 'import vq, vq.core.config as c; print(vq.__file__); print(c.packaged_configs())')
    assert where.stdout.split() == [str(installed / 'vq' / '__init__.py'), str(installed / 'vq' / 'configs')], where.stderr
    done = run(installed, tmp_path, '-m', 'vq.config', 'digits/vq_ema.py')
    assert done.returncode == 0, done.stderr
    assert "type='VQGAN'" in done.stdout and 'checked: trainer, validator' in done.stdout
