"""What an installation asks for: `make TORCH=system`, platforms, the citation file."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

import vq
from tests.sources import ROOT
from tools import system_torch

VERSION = '2.13.0+cpu'
STUB = """#!{python}
import os, subprocess, sys, sysconfig
from pathlib import Path

if sys.argv[1:3] != ['-m', 'venv']:
    sys.exit(subprocess.call(['{python}', '-S', *sys.argv[1:]], env=os.environ | dict(PYTHONPATH='{elsewhere}')))
folder = Path(sys.argv[3])
Path(sysconfig.get_path('purelib', vars=dict(base=str(folder)))).mkdir(parents=True)
pip = folder / 'bin' / 'python'
pip.parent.mkdir()
pip.write_text('#!/bin/sh\\necho "$@" >> ' + str(folder / 'asked'))
pip.chmod(0o755)
"""


@pytest.fixture(scope='module')
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with a torch, as pip installs one."""
    folder = tmp_path_factory.mktemp('elsewhere')
    (folder / 'torch').mkdir()
    (folder / 'torch' / '__init__.py').write_text(f'__version__ = {VERSION!r}\n')
    (folder / f'torch-{VERSION}.dist-info').mkdir()
    (folder / f'torch-{VERSION}.dist-info' / 'METADATA').write_text(
        f'Metadata-Version: 2.1\nName: torch\nVersion: {VERSION}\n'
    )
    return folder


@pytest.fixture(scope='module')
def interpreter(elsewhere: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has this torch and nothing else, and makes environments whose pip says what it is asked for."""
    program = tmp_path_factory.mktemp('interpreter') / 'python'
    program.write_text(STUB.format(python=sys.executable, elsewhere=elsewhere))
    program.chmod(0o755)
    return program


def make(interpreter: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = ['make', '--directory', str(ROOT), f'PYTHON={interpreter}', f'VENV={folder}', *words, f'{folder}/.ready']
    environment = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'MAKEFLAGS', 'TORCH')}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(('words', 'torch'), [(('TORCH=system',), VERSION), ((), '2.14.1')])
def test_pip_is_asked_to_keep_the_torch(words, torch, interpreter, tmp_path):
    done = make(interpreter, tmp_path / 'venv', *words)
    assert done.returncode == 0, done.stderr
    assert f'-c {tmp_path}/venv/constraints.txt --editable .' in (tmp_path / 'venv/asked').read_text()
    pinned = (tmp_path / 'venv/constraints.txt').read_text().splitlines()
    assert [line for line in pinned if line.startswith('torch==')] == [f'torch=={torch}']
    of_its_build = [line for line in pinned if line.startswith(('nvidia-', 'triton', 'cuda-', 'torchvision'))]
    assert bool(of_its_build) is (not words)
    assert any(line.startswith('numpy==') for line in pinned)


def test_an_unknown_way_is_refused(interpreter, tmp_path):
    done = make(interpreter, tmp_path / 'venv', 'TORCH=cpu')
    assert done.returncode == 2 and 'TORCH is index or system, not cpu' in done.stderr
    assert not (tmp_path / 'venv').exists()


@pytest.mark.slow
def test_pip_finds_the_torch_in_a_new_environment(elsewhere, tmp_path, monkeypatch):
    """The real venv and the real pip, without an index: nothing can be downloaded, and nothing needs to be."""
    venv.create(tmp_path / 'venv', with_pip=False)
    monkeypatch.setattr(system_torch, 'found', lambda: (VERSION, elsewhere))
    assert system_torch.share(tmp_path / 'venv') == VERSION
    python = tmp_path / 'venv/bin/python'
    clean = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    used = subprocess.run(
        [python, '-c', 'import torch; print(torch.__file__)'], env=clean, capture_output=True, text=True, check=True
    )
    assert used.stdout.strip() == str(elsewhere / 'torch/__init__.py')
    constraints = tmp_path / 'venv/constraints.txt'
    words = ['--python', python, 'install', '--no-index', '--dry-run', '-c', constraints, 'torch>=2.9.1']
    asked = subprocess.run([sys.executable, '-m', 'pip', *words], env=clean, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    assert f'already satisfied: torch>=2.9.1 in {elsewhere} ({VERSION})' in asked.stdout


@pytest.mark.parametrize(
    ('version', 'said'), [('2.8.0', 'has torch 2.8.0, and vq needs 2.9.1 or newer'), (None, 'has no torch: install')]
)
def test_a_torch_that_cannot_be_used_is_refused(version, said, tmp_path, monkeypatch, capsys):
    if version is None:
        monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    else:
        monkeypatch.setattr('importlib.metadata.version', lambda name: version)
    monkeypatch.setattr(sys, 'argv', ['system_torch.py', str(tmp_path / 'venv')])
    assert system_torch.main() == 2
    assert said in capsys.readouterr().err and not (tmp_path / 'venv').exists()


def test_torch_is_all_that_running_needs_of_its_kind():
    """torchvision must come from the build of torch that is there, and pip would bring another: only tests need it."""
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    assert not any(need.startswith('torchvision') for need in project['dependencies'])
    assert any(need.startswith('torchvision') for need in project['optional-dependencies']['dev'])


def test_windows_is_refused_with_a_reason():
    code = "import sys; sys.platform = 'win32'; import vq"
    done = subprocess.run([sys.executable, '-S', '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith('ImportError: vq runs on Linux and macOS, not on Windows')
    assert last.endswith('Use WSL 2, which is Linux.')


def test_the_citation_is_that_of_this_version():
    lines = (ROOT / 'CITATION.cff').read_text().splitlines()
    assert f'version: {vq.__version__}' in lines and 'license: Apache-2.0' in lines and '  - name: The vq authors' in lines
