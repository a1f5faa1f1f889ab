"""``auto_torchrun``: what it starts, how, and what it sets first."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from tests.sources import ROOT
from vq.cli import cluster, environment, launch


@pytest.fixture(autouse=True)
def _bare(bare_environment, monkeypatch):
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setattr(sys, 'argv', ['auto_torchrun'])


# the plan


@pytest.mark.parametrize(
    ('visible', 'count'),
    [('', 0), ('-1', 0), ('0', 1), ('0,1,2', 3), (' 2, 3', 2), ('GPU-8a,MIG-7b', 2), ('0,-1,1', 1), ('0,,1', 1)],
)
def test_visible_gpus_are_counted_as_cuda_does(monkeypatch, visible, count):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    assert cluster.count_gpus() == count
    assert launch.plan(['-m', 'vq.train']).place.processes == max(1, count)


@pytest.mark.parametrize(
    ('argv', 'target', 'processes', 'restarts'),
    [
        (['script.py', '--nproc-per-node', '3'], ['script.py', '--nproc-per-node', '3'], 1, 0),  # the script's own
        (['--nproc-per-node', '3', '-m', 'a.b', 'x'], ['-m', 'a.b', 'x'], 3, 0),
        (['--nproc-per-node=3', 'script.py'], ['script.py'], 3, 0),
        (['--nproc_per_node=1', '--max_restarts=4', 'script.py'], ['script.py'], 1, 4),
        (['--dry', '-m', 'a.b'], ['-m', 'a.b'], 1, 0),
    ],
)
def test_own_flags_stand_before_the_target(argv, target, processes, restarts):
    found = launch.plan(argv)
    assert (found.target, found.place.processes, found.max_restarts) == (target, processes, restarts)


def test_number_of_processes_goes_before_the_gpus(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
    assert launch.plan(['--nproc-per-node', '1', 'a.py']).place.processes == 1


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        ([], 'nothing to start'),
        (['-m'], 'nothing to start'),
        (['--nproc-per-node', '2'], 'nothing to start'),
        (['--nproc-per-node', '0', 'a.py'], "needs a number of processes, not '0'"),
        (['--nproc-per-node=gpu', 'a.py'], "not 'gpu'"),
        (['--nproc-per-node'], "not ''"),
        (['--nodes', '2', 'a.py'], "no option '--nodes'"),
        (['--max-restarts', '-1', 'a.py'], "--max-restarts needs a number from 0, not '-1'"),
        (['--nnodes', '0', 'a.py'], "--nnodes needs a number of nodes, not '0'"),
        (['--master-port', '65535', 'a.py'], 'ports end at 65534'),
        (['--master-addr', '', 'a.py'], 'needs the name of a machine'),
        (['--nproc-per-node', '2', '-m', 'no.such.module'], 'there is no module no.such.module'),
        (['-n', '2', 'a.py'], "no option '-n'"),
        (['-m', 'no.such.module'], 'there is no module no.such.module'),
        (['-m', 'vq.no_such_module'], 'there is no module vq.no_such_module'),
        (['no_such_script.py'], 'there is no file no_such_script.py'),
    ],
)
def test_bad_usage_ends_with_code_2_and_the_usage_last(capsys, argv, message):
    assert launch.main(argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[0] and lines[-1] == f'Usage: {launch.USAGE}'


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as end:
        launch.main(['--help'])
    text = capsys.readouterr().out
    assert end.value.code == 0 and 'srun --ntasks-per-node=1 auto_torchrun' in text
    assert all(f'--{name} ' in text for name in launch.FLAGS)


# starting


@pytest.mark.parametrize(
    ('body', 'code', 'error'),
    [
        ('import sys; sys.exit(3)', 3, ''),
        ('import sys; sys.exit()', 0, ''),
        ('x = 1', 0, ''),
        ('import sys; sys.exit("a message")', 1, 'a message'),
        ('open("no such file")', 1, 'FileNotFoundError'),  # the script's own fault, not a missing script
        ('import no_such_package', 1, 'ModuleNotFoundError'),
        ('import sys, beside; assert sys.argv[1:] == ["a", "b"]; sys.exit(beside.CODE)', 4, ''),
    ],
)
@pytest.mark.parametrize('as_module', [False, True])
def test_one_process_runs_here_and_its_exit_code_is_ours(tmp_path, monkeypatch, capsys, body, code, error, as_module):
    name = f'started_by_a_test_{abs(hash(body))}'
    (tmp_path / f'{name}.py').write_text(body)
    (tmp_path / 'beside.py').write_text('CODE = 4')
    monkeypatch.chdir(tmp_path)
    assert launch.main([*(['-m', name] if as_module else [f'{name}.py']), 'a', 'b']) == code
    sys.modules.pop('beside', None)
    assert error in capsys.readouterr().err


def test_a_script_elsewhere_finds_what_stands_beside_it(tmp_path, monkeypatch):
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools' / 'script.py').write_text('import sys, beside_the_script; sys.exit(beside_the_script.CODE)')
    (tmp_path / 'tools' / 'beside_the_script.py').write_text('CODE = 5')
    monkeypatch.chdir(tmp_path)
    assert launch.main(['tools/script.py']) == 5


@pytest.mark.slow
@pytest.mark.parametrize('launcher', [[sys.executable, '-m', 'vq.cli.launch'], ['bash', str(ROOT / 'tools' / 'torchrun.sh')]])
def test_two_ranks_start(tmp_path, launcher):
    script = tmp_path / 'script.py'
    script.write_text(
        'import os, sys\nopen("rank" + os.environ["RANK"], "w").write(" ".join(sys.argv[1:]) + os.environ["WORLD_SIZE"])'
    )
    done = subprocess.run(
        [*launcher, '--nproc-per-node', '2', str(script), 'a b'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f'rank{rank}').read_text() for rank in (0, 1)] == ['a b2', 'a b2']


# the environment


def test_prepare_sets_what_is_not_set(monkeypatch):
    monkeypatch.setattr(environment, 'usable_cores', lambda: 8)
    environment.prepare()
    assert (os.environ['OMP_WAIT_POLICY'], os.environ['OMP_NUM_THREADS']) == ('passive', '8')


def test_prepare_leaves_the_users_settings(monkeypatch):
    monkeypatch.setenv('OMP_WAIT_POLICY', 'active')
    monkeypatch.setenv('OMP_NUM_THREADS', '5')
    environment.prepare(4)
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
