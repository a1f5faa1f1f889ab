"""``auto_torchrun``: what it starts, how, and what it sets first."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from tests.sources import ROOT
from vq.cli import environment, launch

SETTINGS = (
    'RANK',
    'WORLD_SIZE',
    'LOCAL_RANK',
    'LOCAL_WORLD_SIZE',
    'MASTER_ADDR',
    'MASTER_PORT',
    'CUDA_VISIBLE_DEVICES',
    'OMP_NUM_THREADS',
    'OMP_WAIT_POLICY',
)


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in [*SETTINGS, *(name for name in os.environ if name.startswith('SLURM_'))]:
        monkeypatch.setenv(name, '')  # so that what a test leaves is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setattr(sys, 'argv', ['auto_torchrun'])


# the plan


@pytest.mark.parametrize(
    ('visible', 'count'),
    [('', 0), ('-1', 0), ('0', 1), ('0,1,2', 3), (' 2, 3', 2), ('GPU-8a,MIG-7b', 2), ('0,-1,1', 1), ('0,,1', 1)],
)
def test_visible_gpus_are_counted_as_cuda_does(monkeypatch, visible, count):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    assert launch.count_gpus() == count
    assert launch.plan(['-m', 'vq.train']) == launch.Plan(['-m', 'vq.train'], max(1, count))


@pytest.mark.parametrize(
    ('argv', 'expected'),
    [
        (['script.py', '--nproc-per-node', '3'], (['script.py', '--nproc-per-node', '3'], 1)),  # the script's own
        (['--nproc-per-node', '3', '-m', 'a.b', 'x'], (['-m', 'a.b', 'x'], 3)),
        (['--nproc-per-node=3', 'script.py'], (['script.py'], 3)),
        (['--nproc_per_node=1', 'script.py'], (['script.py'], 1)),
        (['--dry', '-m', 'a.b'], (['-m', 'a.b'], 1, True)),
    ],
)
def test_own_flags_stand_before_the_target(argv, expected):
    assert launch.plan(argv) == launch.Plan(*expected)


def test_number_of_processes_goes_before_the_gpus(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
    assert launch.plan(['--nproc-per-node', '1', 'a.py']).processes == 1


def set_variables(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize('local', [{}, {'LOCAL_RANK': 0}])
def test_rank_of_a_launcher_with_a_device_of_its_own_stays_in_the_same_process(monkeypatch, local):
    set_variables(monkeypatch, RANK=1, WORLD_SIZE=2, CUDA_VISIBLE_DEVICES='0,1' if local else '0', **local)
    assert launch.plan(['-m', 'vq.train']) == launch.Plan(['-m', 'vq.train'], 1)


def test_child_of_torchrun_does_not_start_torchrun_again(monkeypatch):
    set_variables(monkeypatch, RANK=1, WORLD_SIZE=2, LOCAL_RANK=1, CUDA_VISIBLE_DEVICES='0,1')
    assert launch.plan(['--nproc-per-node', '2', 'a.py']).processes == 1


def test_pods_with_several_gpus_start_torchrun_each(monkeypatch, capsys):
    set_variables(monkeypatch, RANK=2, WORLD_SIZE=3, MASTER_ADDR='pod-0', MASTER_PORT=23456, CUDA_VISIBLE_DEVICES='0,1')
    assert launch.main(['--dry', '-m', 'vq.train', 'x']) == 0
    assert capsys.readouterr().out.split()[1:] == [
        '-m',
        'torch.distributed.run',
        '--nnodes=3',
        '--node-rank=2',
        '--master-addr=pod-0',
        '--master-port=23456',
        '--nproc-per-node=2',
        '-m',
        'vq.train',
        'x',
    ]


def test_single_pod_with_several_gpus_is_one_machine(monkeypatch):
    set_variables(monkeypatch, RANK=0, WORLD_SIZE=1, CUDA_VISIBLE_DEVICES='0,1')
    assert launch.plan(['a.py']) == launch.Plan(['a.py'], 2)


SRUN = {
    'SLURM_PROCID': 5,
    'SLURM_LOCALID': 1,
    'SLURM_NODEID': 1,
    'SLURM_JOB_ID': 123456,
    'SLURM_STEP_NUM_TASKS': 7,
    'SLURM_STEP_NUM_NODES': 2,
    'SLURM_STEP_TASKS_PER_NODE': '4,3',
    'SLURM_STEP_NODELIST': 'gpu[07-08]',
}


def test_srun_with_one_task_a_device_stays_in_the_same_process(monkeypatch, tmp_path, capsys):
    set_variables(monkeypatch, CUDA_VISIBLE_DEVICES='0,1,2,3', **SRUN)
    found = launch.plan(['-m', 'vq.train'])
    assert found.processes == 1 and found.variables == {
        'RANK': '5',
        'WORLD_SIZE': '7',
        'LOCAL_RANK': '1',
        'LOCAL_WORLD_SIZE': '3',
        'MASTER_ADDR': 'gpu07',
        'MASTER_PORT': '23456',
    }
    for name in found.variables:
        monkeypatch.setenv(name, '')  # so that what the command sets is taken back
        monkeypatch.delenv(name)
    script = tmp_path / 'script.py'
    script.write_text('import os; print(os.environ["RANK"], os.environ["OMP_NUM_THREADS"])')
    monkeypatch.setattr(environment, 'usable_cores', lambda: 6)
    assert launch.main([str(script)]) == 0 and capsys.readouterr().out.split() == ['5', '2']


def test_srun_with_one_task_a_node_starts_torchrun_on_each(monkeypatch):
    set_variables(
        monkeypatch,
        CUDA_VISIBLE_DEVICES='0,1,2,3',
        **{**SRUN, 'SLURM_PROCID': 1, 'SLURM_LOCALID': 0, 'SLURM_STEP_NUM_TASKS': 2, 'SLURM_STEP_TASKS_PER_NODE': '1(x2)'},
    )
    assert launch.plan(['a.py']) == launch.Plan(['a.py'], 4, node=launch.Node(2, 1, 'gpu07', '23456'))


@pytest.mark.parametrize(
    ('nodes', 'first'),
    [('n1', 'n1'), ('n1,n2', 'n1'), ('gpu[07-09,12],x', 'gpu07'), ('a[3,5]-ib,b', 'a3-ib'), ('rack1-n[1-2]', 'rack1-n1')],
)
def test_first_node_of_a_list_is_where_ranks_meet(monkeypatch, nodes, first):
    set_variables(monkeypatch, **{**SRUN, 'SLURM_STEP_NODELIST': nodes})
    assert launch.slurm_variables()['MASTER_ADDR'] == first


@pytest.mark.parametrize(
    ('spread', 'node', 'tasks'), [('4(x2),3', 0, '4'), ('4(x2),3', 1, '4'), ('4(x2),3', 2, '3'), ('8', 0, '8')]
)
def test_tasks_of_this_node_are_read_from_the_spread(monkeypatch, spread, node, tasks):
    set_variables(monkeypatch, **{**SRUN, 'SLURM_STEP_TASKS_PER_NODE': spread, 'SLURM_NODEID': node})
    assert launch.slurm_variables()['LOCAL_WORLD_SIZE'] == tasks


def test_within_an_allocation_but_without_srun_it_is_one_machine(monkeypatch):
    set_variables(monkeypatch, SLURM_JOB_ID=1, SLURM_PROCID=0, SLURM_NTASKS=8, CUDA_VISIBLE_DEVICES='0,1')
    assert launch.plan(['a.py']) == launch.Plan(['a.py'], 2)


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


def test_dry_prints_a_line_for_the_shell(capsys):
    python = os.path.basename(sys.executable)
    assert launch.main(['--dry', '-m', 'vq.train', 'my run', '--override', '.a[0]:dict(b=1)']) == 0
    assert launch.main(['--dry', '--nproc-per-node', '2', '-m', 'vq.train', 'x']) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{python} -m vq.train 'my run' --override '.a[0]:dict(b=1)'",
        f'{python} -m torch.distributed.run --standalone --nproc-per-node=2 -m vq.train x',
    ]
    assert 'OMP_WAIT_POLICY' not in os.environ


# starting


def test_several_processes_become_torchrun_with_threads_shared_out(monkeypatch):
    started = []
    monkeypatch.setattr(launch.several, 'run', lambda command: started.append(command) or 7)
    monkeypatch.setattr(environment, 'usable_cores', lambda: 7)
    assert launch.main(['--nproc-per-node', '3', '-m', 'vq.train', 'x']) == 7
    assert started == [['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=3', '-m', 'vq.train', 'x']]
    assert (os.environ['OMP_NUM_THREADS'], os.environ['OMP_WAIT_POLICY']) == ('2', 'passive')


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
