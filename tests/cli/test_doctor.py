"""``vq doctor``: what it finds, what it says to do, and its exit code."""

from __future__ import annotations

import errno
import fcntl
import importlib.metadata
import json
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from vq.cli import doctor, doctor_checks
from vq.cli.doctor_checks import Finding


def of(check) -> dict[str, Finding]:
    return {finding.name: finding for finding in check}


@pytest.mark.slow
def test_findings_as_json_with_a_real_step(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert doctor.main(['--json']) == 0
    told = json.loads(capsys.readouterr().out)
    found = {finding['name']: finding for finding in told['findings']}
    assert told['ok'] and {'python', 'torch', 'cores', 'memory', 'disk', 'runs', 'weights'} <= set(found)
    assert found['training on cpu']['text'].startswith('3 steps of digits/vq_ema.py')
    assert found['runs']['text'] == f'{tmp_path} can be written, and has locks'
    assert not list(tmp_path.iterdir())  # nothing is left behind


@pytest.mark.slow
def test_the_table_and_the_exit_code(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('COLUMNS', '80')
    monkeypatch.setattr(doctor_checks, 'check_torch', lambda: iter([Finding('torch', 'fail', 'is broken', 'Mend it.')]))
    assert doctor.main(['--no-step', '--work-dir', str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    row = next(number for number, line in enumerate(lines) if 'is broken' in line)
    assert lines[row].startswith('fail') and 'Mend it.' in lines[row + 1] and max(map(len, lines)) <= 80
    assert not any('training on' in line for line in lines)


def test_torch_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    found = of(doctor_checks.check_torch())['torch']
    assert found.state == 'fail' and 'pip install torch' in found.hint


@pytest.mark.parametrize(('cuda', 'state', 'hint'), [(None, 'warn', 'Install a build'), ('13.0', 'fail', 'driver is too old')])
def test_gpus_that_torch_cannot_use(cuda, state, hint, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
    found = of(doctor_checks.check_torch())['torch']
    assert found.state == state and '2 GPUs are here, and torch cannot use them' in found.text and hint in found.hint
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert of(doctor_checks.check_torch())['torch'].state == 'ok'


def test_little_memory_and_a_full_disk_are_warnings(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_checks, 'LOW_MEMORY', 2**60)
    assert of(doctor_checks.check_memory())['memory'].state == 'warn'
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda place: usage(2**40, 2**40 - 2**30, 2**30))
    found = of(doctor_checks.check_folder(tmp_path / 'runs'))['disk']
    assert found.state == 'warn' and found.text == f'1.0 GiB free for {tmp_path}/runs (to be made in {tmp_path})'


def test_a_folder_that_cannot_be_written():
    found = of(doctor_checks.check_folder(Path('/proc/runs')))['runs']
    assert found.state == 'fail' and 'no file can be written in /proc' in found.text and '--work-dir' in found.hint


@pytest.mark.parametrize(('code', 'state'), [(errno.ENOLCK, 'warn'), (errno.EAGAIN, 'ok')])
def test_a_file_system_without_locks(code, state, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(code, 'refused')

    monkeypatch.setattr(fcntl, 'lockf', refuse)
    assert of(doctor_checks.check_folder(tmp_path))['runs'].state == state


def test_caches_have_sizes(tmp_path, monkeypatch):
    (tmp_path / 'hub').mkdir()
    (tmp_path / 'hub' / 'file').write_bytes(bytes(3 * 2**20))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    assert of(doctor_checks.check_caches())['cache of torch.hub'].text == f'{tmp_path}: 3 MiB'


def test_no_compiler_is_a_warning(monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    found = of(doctor_checks.check_compiler())['compiler']
    assert found.state == 'warn' and 'strategy.compile' in found.hint


@pytest.mark.slow
def test_packages_that_are_missing_are_named_with_their_extra(monkeypatch):
    monkeypatch.setattr(doctor_checks, 'EXTRAS', {'json': ('core', 'data'), 'no_such_module': ('extra', 'a use')})
    found = of(doctor_checks.check_packages())
    assert found['vq[extra]'].text == 'optional, not installed: no_such_module (a use)' and 'json' in found


def test_a_version_is_that_of_the_package_which_has_the_module(monkeypatch):
    assert doctor_checks.version_of('PIL') == importlib.metadata.version('pillow')
    assert doctor_checks.version_of('json') == 'installed', 'it is of no package'
    monkeypatch.setattr(doctor_checks, 'distributions', lambda: pytest.fail('reading all packages takes long'))
    assert doctor_checks.version_of('numpy') == importlib.metadata.version('numpy')


@pytest.mark.slow
def test_a_check_that_raises_does_not_end_the_others(tmp_path, monkeypatch):
    def broken():
        raise ZeroDivisionError('odd')

    monkeypatch.setattr(doctor_checks, 'check_memory', broken)
    found = of(doctor_checks.examine(str(tmp_path), steps=False))
    assert found['memory'] == Finding('memory', 'fail', 'the check itself failed: ZeroDivisionError: odd')
    assert found['runs'].state == 'ok'


def test_a_device_that_cannot_train(monkeypatch):
    found = doctor_checks.step_on('cuda:99')
    assert found.state == 'fail' and found.name == 'training on cuda:99' and 'Other devices may work' in found.hint
