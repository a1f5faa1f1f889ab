"""Usable cores and devices of a process, and variables that are set before torch is imported."""

from __future__ import annotations

import io
import os

import pytest

from vq.core import environment
from vq.core.errors import UserError


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    """Restore the variables that ``prepare`` sets."""
    for name in ('LOCAL_WORLD_SIZE', 'OMP_NUM_THREADS', 'OMP_WAIT_POLICY'):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ('visible', 'count'),
    [('', 0), ('-1', 0), ('0', 1), ('0,1,2', 3), (' 2, 3', 2), ('GPU-8a,MIG-7b', 2), ('0,-1,1', 1), ('0,,1', 1)],
)
def test_visible_gpus_are_counted_as_cuda_does(monkeypatch, visible, count):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    assert environment.usable_gpus() == count


def test_prepare_sets_what_is_not_set(monkeypatch):
    monkeypatch.setattr(environment, 'usable_cores', lambda: 8)
    environment.prepare()
    assert (os.environ['OMP_WAIT_POLICY'], os.environ['OMP_NUM_THREADS']) == ('passive', '8')


def test_prepare_leaves_the_users_settings(monkeypatch):
    monkeypatch.setenv('OMP_WAIT_POLICY', 'active')
    monkeypatch.setenv('OMP_NUM_THREADS', '5')
    environment.prepare()
    assert (os.environ['OMP_WAIT_POLICY'], os.environ['OMP_NUM_THREADS']) == ('active', '5')


@pytest.mark.parametrize(('local', 'cores', 'threads'), [('2', 8, '4'), ('3', 8, '2'), ('16', 8, '1'), ('', 8, '8')])
def test_ranks_of_one_machine_share_its_cores(monkeypatch, local, cores, threads):
    monkeypatch.setattr(environment, 'usable_cores', lambda: cores)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', local)
    environment.prepare()
    assert os.environ['OMP_NUM_THREADS'] == threads


@pytest.mark.parametrize(
    ('quota', 'cores'), [('max 100000', 6), ('250000 100000', 2), ('50000 100000', 1), ('900000 100000', 6), ('', 6)]
)
def test_cores_are_those_of_the_affinity_and_of_the_container(monkeypatch, quota, cores):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(environment, 'open', lambda name: io.StringIO(quota), raising=False)
    assert environment.usable_cores() == cores


def test_commands_prepare_the_environment():
    from vq.cli import config

    config.main(['digits/vq_ema.py', '--no-check'])
    assert os.environ['OMP_WAIT_POLICY'] == 'passive' and int(os.environ['OMP_NUM_THREADS']) >= 1


@pytest.mark.parametrize(('text', 'value'), [('3', 3), (' 4 ', 4), ('', 7)])
def test_number_reads_a_variable(monkeypatch, text, value):
    monkeypatch.setenv('SOME_COUNT', text)
    assert environment.number('SOME_COUNT', 7) == value and environment.is_set('SOME_COUNT') == bool(text)


@pytest.mark.parametrize('text', ['', 'one', '-1', '1.5'])
def test_number_says_what_is_none(monkeypatch, text):
    monkeypatch.setenv('SOME_COUNT', text)
    with pytest.raises(UserError, match=f"SOME_COUNT is '{text}', which is not a number"):
        environment.number('SOME_COUNT')
