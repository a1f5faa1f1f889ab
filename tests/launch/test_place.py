"""``auto_torchrun --dry`` with the environment variables of every kind of cluster."""

from __future__ import annotations

import os
import shlex
import sys

import pytest

from vq.core import environment
from vq.core.errors import UserError
from vq.launch import main as launch
from vq.launch import place

PYTHON = os.path.basename(sys.executable)
TARGET = ['-m', 'vq.train', 'x']


@pytest.fixture(autouse=True)
def _bare(bare_environment, monkeypatch):
    monkeypatch.setattr(environment, 'usable_cores', lambda: 8)


@pytest.fixture
def dry(monkeypatch, capsys):
    """(variables, options) -> for each process: added environment variables without thread settings, threads, command."""

    def run(variables=None, *options):
        for name, value in (variables or {}).items():
            monkeypatch.setenv(name, str(value))
        before = dict(os.environ)
        code = launch.main(['--dry', *options, *TARGET])
        said = capsys.readouterr()
        assert code == 0, said.err
        assert dict(os.environ) == before
        return [split(line) for line in said.out.splitlines()]

    return run


def split(line):
    words = shlex.split(line)
    start = words.index(PYTHON)
    added = dict(word.split('=', 1) for word in words[:start])
    threads = {name: added.pop(name) for name in ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY')}
    assert threads['OMP_WAIT_POLICY'] == 'passive'
    return added, int(threads['OMP_NUM_THREADS']), words[start + 1 :]


def ranks(first, count, world, address, port, local_first=0, local_world=None):
    local_world = local_world or count
    return [
        {
            'RANK': str(first + index),
            'WORLD_SIZE': str(world),
            'LOCAL_RANK': str(local_first + index),
            'LOCAL_WORLD_SIZE': str(local_world),
            'MASTER_ADDR': address,
            'MASTER_PORT': str(port),
        }
        for index in range(count)
    ]


# one machine


def test_bare_machine_is_a_plain_process(dry):
    assert dry() == [({}, 8, TARGET)]


def test_several_gpus_are_a_process_each(dry):
    found = dry({'CUDA_VISIBLE_DEVICES': '0,1,2'}, '--master-port', '2345')
    assert found == [(added, 2, ['-u', *TARGET]) for added in ranks(0, 3, 3, '127.0.0.1', 2345)]


def test_number_of_processes_goes_before_the_gpus(dry):
    assert dry({'CUDA_VISIBLE_DEVICES': '0,1'}, '--nproc-per-node', '1') == [({}, 8, TARGET)]


def test_processes_of_one_machine_meet_on_one_port(dry):
    found = dry({}, '--nproc-per-node', '2')
    assert [added for added, _, _ in found] == ranks(0, 2, 2, '127.0.0.1', 29500)


def test_one_process_that_may_be_restarted_is_started_beside_the_launcher(dry):
    assert dry({}, '--max-restarts', '2', '--master-port', '99') == [(*ranks(0, 1, 1, '127.0.0.1', 99), 8, ['-u', *TARGET])]


def test_a_line_can_be_pasted_into_a_shell(capsys, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    assert launch.main(['--dry', '-m', 'vq.train', 'my run', '--override', '.a[0]:dict(b=1)']) == 0
    assert capsys.readouterr().out == f"OMP_WAIT_POLICY=passive {PYTHON} -m vq.train 'my run' --override '.a[0]:dict(b=1)'\n"


# nodes that are named by options, as for torchrun


def test_nodes_by_options(dry):
    options = ['--nnodes', '2', '--node-rank', '1', '--nproc-per-node=2', '--master-addr', 'one', '--master-port', '77']
    assert [added for added, _, _ in dry({}, *options)] == ranks(2, 2, 4, 'one', 77)
    options[-4:] = ['--rdzv-endpoint', 'one:77']
    assert [added for added, _, _ in dry({}, *options)] == ranks(2, 2, 4, 'one', 77)


def test_indexed_job_of_kubernetes_knows_its_node_rank(dry):
    found = dry({'JOB_COMPLETION_INDEX': 2}, '--nnodes', '3', '--master-addr', 'pod-0')
    assert [added for added, _, _ in found] == ranks(2, 1, 3, 'pod-0', 29500, local_world=1)


# Kubernetes and torchrun

POD = {'RANK': 2, 'WORLD_SIZE': 3, 'MASTER_ADDR': 'pod-0', 'MASTER_PORT': 23456}


def test_pod_with_one_device_is_a_rank_in_the_same_process(dry):
    assert dry(POD) == [({'LOCAL_RANK': '0', 'LOCAL_WORLD_SIZE': '1'}, 8, TARGET)]


def test_pods_with_several_gpus_start_a_process_for_each(dry):
    found = dry({**POD, 'CUDA_VISIBLE_DEVICES': '0,1'})
    expected = ranks(4, 2, 6, 'pod-0', 23456)
    for added in expected:
        del added['MASTER_ADDR'], added['MASTER_PORT']  # are there
    assert found == [(added, 4, ['-u', *TARGET]) for added in expected]


def test_pod_with_restarts_has_a_launcher(dry):
    [(added, _, command)] = dry(POD, '--max-restarts', '1')
    assert (added, command[0]) == ({'LOCAL_RANK': '0', 'LOCAL_WORLD_SIZE': '1'}, '-u')


def test_single_pod_is_one_machine(dry):
    found = dry({'RANK': 0, 'WORLD_SIZE': 1, 'CUDA_VISIBLE_DEVICES': '0,1', 'MASTER_PORT': 5})
    assert [added.get('RANK', 'is there') for added, _, _ in found] == ['is there', '1']
    assert found[0][0]['WORLD_SIZE'] == '2'


KUBEFLOW = {
    'PET_NNODES': '2:2',
    'PET_NPROC_PER_NODE': '4',
    'PET_NODE_RANK': '1',
    'PET_MASTER_ADDR': 'job-master-0',
    'PET_MASTER_PORT': '23456',
    'MASTER_ADDR': 'job-master-0',
    'MASTER_PORT': '23456',
    'RANK': '1',
    'WORLD_SIZE': '8',
}


def test_kubeflow_says_it_in_the_variables_of_torchrun(dry):
    found = dry(KUBEFLOW)
    assert [added['RANK'] for added, _, _ in found] == ['4', '5', '6', '7']
    assert [added['LOCAL_RANK'] for added, _, _ in found] == ['0', '1', '2', '3']


def test_auto_of_kubeflow_counts_gpus_and_restarts_come_along(monkeypatch):
    for name, value in {**KUBEFLOW, 'PET_NPROC_PER_NODE': 'auto', 'WORLD_SIZE': '2', 'PET_MAX_RESTARTS': '3'}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1,2')
    options = launch.read_options(TARGET)
    found = place.find_place(options)
    assert (found.processes, found.nodes, found.node, options.max_restarts) == (3, 2, 1, 3)


def test_child_of_torchrun_does_not_start_others(dry):
    child = {**POD, 'LOCAL_RANK': 1, 'LOCAL_WORLD_SIZE': 2, 'CUDA_VISIBLE_DEVICES': '0,1', 'TORCHELASTIC_RUN_ID': 'none'}
    assert dry(child, '--nproc-per-node', '2') == [({}, 4, TARGET)]


# SLURM

TASK = {
    'SLURM_PROCID': 5,
    'SLURM_LOCALID': 1,
    'SLURM_NODEID': 1,
    'SLURM_JOB_ID': 123456,
    'SLURM_STEP_NUM_TASKS': 7,
    'SLURM_STEP_NUM_NODES': 2,
    'SLURM_STEP_TASKS_PER_NODE': '4,3',
    'SLURM_STEP_NODELIST': 'gpu[07-08]',
    'CUDA_VISIBLE_DEVICES': '0,1,2,3',
}
NODE = {**TASK, 'SLURM_PROCID': 1, 'SLURM_LOCALID': 0, 'SLURM_STEP_NUM_TASKS': 2, 'SLURM_STEP_TASKS_PER_NODE': '1(x2)'}
ONE = {**TASK, 'SLURM_NODEID': 0, 'SLURM_STEP_NUM_NODES': 1, 'SLURM_STEP_NODELIST': 'gpu07'}
PORT = 20000 + 123456 % 10000


def test_srun_with_one_task_a_device_is_a_rank_in_the_same_process(dry):
    assert dry(TASK) == [(*ranks(5, 1, 7, 'gpu07', PORT, local_first=1, local_world=3), 2, TARGET)]


def test_srun_with_one_task_a_device_and_restarts_has_a_launcher_for_each(dry):
    assert dry(TASK, '--max-restarts', '1') == [
        (*ranks(5, 1, 7, 'gpu07', PORT, local_first=1, local_world=3), 2, ['-u', *TARGET])
    ]


def test_srun_with_one_task_a_node_starts_a_process_per_gpu(dry):
    assert dry(NODE) == [(added, 2, ['-u', *TARGET]) for added in ranks(4, 4, 8, 'gpu07', PORT)]


def test_srun_on_a_single_node_with_a_task_a_device(dry):
    single = {**ONE, 'SLURM_PROCID': 1, 'SLURM_STEP_NUM_TASKS': 4, 'SLURM_STEP_TASKS_PER_NODE': '4'}
    assert dry(single) == [(*ranks(1, 1, 4, 'gpu07', PORT, local_first=1, local_world=4), 2, TARGET)]


def test_srun_on_a_single_node_with_one_task(dry):
    single = {**ONE, 'SLURM_PROCID': 0, 'SLURM_LOCALID': 0, 'SLURM_STEP_NUM_TASKS': 1, 'SLURM_STEP_TASKS_PER_NODE': '1'}
    found = dry(single)
    assert [(added['RANK'], added['WORLD_SIZE'], added['MASTER_ADDR']) for added, _, _ in found] == [
        (str(rank), '4', '127.0.0.1') for rank in range(4)
    ]


def test_two_steps_of_a_job_meet_on_two_ports(dry):
    ports = set()
    for job, step in [(123456, 0), (123456, 1), (123457, 0), (123457, 'batch')]:
        [(added, _, _)] = dry({**TASK, 'SLURM_JOB_ID': job, 'SLURM_STEP_ID': step})
        ports.add(int(added['MASTER_PORT']))
    assert len(ports) == 3 and all(20000 <= port < 30000 for port in ports)


def test_a_script_may_name_the_address_and_the_world_as_srun_does(dry):
    found = dry({**TASK, 'WORLD_SIZE': 7, 'RANK': 5, 'MASTER_ADDR': 'gpu08', 'MASTER_PORT': 1234})
    assert found[0][0] == {'LOCAL_RANK': '1', 'LOCAL_WORLD_SIZE': '3'}


def test_without_srun_the_other_nodes_stay_idle_and_that_is_said(monkeypatch, tmp_path, capsys):
    for name, value in {'SLURM_JOB_ID': 1, 'SLURM_PROCID': 0, 'SLURM_NTASKS': 8, 'SLURM_JOB_NUM_NODES': 3}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setattr(sys, 'argv', [])
    (tmp_path / 'script.py').write_text('')
    assert launch.main([str(tmp_path / 'script.py')]) == 0
    assert '2 more nodes stay idle; srun starts one launcher on each' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('text', 'name'),
    [
        ('node[01-03,07]', 'node01'),
        ('n1', 'n1'),
        ('n1,n2', 'n1'),
        ('gpu[098-101],x', 'gpu098'),
        ('x,gpu[098-101]', 'x'),
        ('a[3,5]-ib,b', 'a3-ib'),
        ('rack1-n[1-2]', 'rack1-n1'),
        ('r[1-2]n[3,5]', 'r1n3'),
        ('a[9-10],a[11],c.example', 'a9'),
    ],
)
def test_ranks_meet_on_the_first_node(text, name):
    assert place.first_node(text) == name


@pytest.mark.parametrize('text', ['', 'n[1-', 'n1]', 'n[a-b]', 'n[]', 'n[[1]]'])
def test_node_lists_that_are_none_are_refused(text):
    with pytest.raises(UserError, match='which names no nodes'):
        place.first_node(text)


@pytest.mark.parametrize(
    ('text', 'tasks'), [('4(x2),3', (4, 4, 3)), ('8,1', (8, 1)), ('1(x3)', (1, 1, 1)), ('2,1(x2)', (2, 1, 1))]
)
def test_tasks_per_node_are_expanded(dry, text, tasks):
    for node, local_world in enumerate(tasks):
        step = {'SLURM_STEP_NUM_TASKS': sum(tasks), 'SLURM_STEP_NUM_NODES': len(tasks), 'SLURM_STEP_TASKS_PER_NODE': text}
        [(added, _, _)] = dry({**TASK, **step, 'SLURM_NODEID': node, 'SLURM_LOCALID': 0}, '--nproc-per-node', '1')
        assert added['LOCAL_WORLD_SIZE'] == str(local_world)


# TPU


@pytest.mark.parametrize(
    ('variables', 'added'),
    [
        ({'PJRT_DEVICE': 'TPU'}, {}),
        ({'TPU_WORKER_ID': '0', 'TPU_WORKER_HOSTNAMES': 'localhost'}, {'PJRT_DEVICE': 'TPU'}),
        ({'TPU_ACCELERATOR_TYPE': 'v4-8', 'CUDA_VISIBLE_DEVICES': '0,1'}, {'PJRT_DEVICE': 'TPU'}),
        ({'PJRT_DEVICE': 'CPU', 'TPU_WORKER_ID': '0'}, {}),
    ],
)
def test_tpu_is_driven_by_one_process(dry, variables, added):
    assert dry(variables) == [(added, 8, TARGET)]


# contradictions


@pytest.mark.parametrize(
    ('variables', 'options', 'message', 'hint'),
    [
        ({'RANK': 3, 'WORLD_SIZE': 3, 'MASTER_ADDR': 'a'}, [], 'RANK=3 and WORLD_SIZE=3 contradict', 'count from 0'),
        ({'WORLD_SIZE': 3}, [], 'WORLD_SIZE is set and RANK is not', 'Set both'),
        ({'RANK': 1}, [], 'RANK is set and WORLD_SIZE is not', 'Set both'),
        ({'RANK': 'one', 'WORLD_SIZE': 3}, [], "RANK is 'one', which is not a number", 'Unset RANK'),
        ({'RANK': 1, 'WORLD_SIZE': 3}, [], 'MASTER_ADDR is not set', '--master-addr'),
        ({'RANK': 1, 'WORLD_SIZE': 3, 'LOCAL_RANK': 0}, [], 'MASTER_ADDR is not set', '--master-addr'),
        ({**POD, 'LOCAL_RANK': 2, 'LOCAL_WORLD_SIZE': 2}, [], 'LOCAL_RANK=2 and LOCAL_WORLD_SIZE=2', 'Unset'),
        ({**POD, 'LOCAL_RANK': 0, 'TORCHELASTIC_RUN_ID': 'a'}, ['--max-restarts', '1'], 'is a rank already', 'to torchrun'),
        (POD, ['--nnodes', '2', '--node-rank', '1'], 'WORLD_SIZE=3 fits neither 2 nodes nor 1 processes', 'Leave --nnodes'),
        ({}, ['--nnodes', '2', '--master-addr', 'a'], '2 nodes, and the rank of this node is not given', 'Add --node-rank'),
        ({}, ['--nnodes', '2', '--master-addr', 'a', '--node-rank', '2'], '2 nodes, and --node-rank is 2', 'from 0 to 1'),
        ({}, ['--nnodes', '2', '--node-rank', '1'], 'MASTER_ADDR is not set', '--master-addr'),
        ({}, ['--nnodes', '2', '--node-rank', '1', '--master-addr', ''], 'MASTER_ADDR is not set', '--master-addr'),
        ({}, ['--nnodes', '2', '--node-rank', '1', '--rdzv-endpoint', ':99'], 'MASTER_ADDR is not set', '--master-addr'),
        ({}, ['--node-rank', '1'], 'not the number of nodes', 'Add --nnodes'),
        ({}, ['--master-addr', 'a', '--rdzv-endpoint', 'b:1'], '--master-addr is a and --rdzv-endpoint is b', 'Leave one'),
        ({}, ['--master-port', '2', '--rdzv-endpoint', 'b:1'], '--master-port is 2 and --rdzv-endpoint is 1', 'Leave one'),
        ({**KUBEFLOW, 'PET_NNODES': '1:4'}, [], '--nnodes (PET_NNODES) is 1:4, a range', 'least and the largest'),
        ({**KUBEFLOW, 'MASTER_ADDR': 'other'}, [], 'PET_MASTER_ADDR is job-master-0 and MASTER_ADDR is other', 'Leave one'),
        ({**KUBEFLOW, 'WORLD_SIZE': '5'}, [], 'WORLD_SIZE=5 fits neither 2 nodes nor 4 processes', 'unset RANK'),
        ({**TASK, 'RANK': 1, 'WORLD_SIZE': 7}, [], 'RANK is 1 and SLURM_PROCID is 5', 'Leave one'),
        ({**TASK, 'SLURM_STEP_NODELIST': 'gpu[07-'}, [], "is 'gpu[07-', which names no nodes", 'as srun does'),
        ({**TASK, 'SLURM_STEP_TASKS_PER_NODE': '4,4'}, [], 'contradict each other', 'by srun'),
        (TASK, ['--nproc-per-node', '4'], 'srun has started 3 tasks on this node, and each would', '--ntasks-per-node=1'),
        (NODE, ['--nnodes', '3'], '--nnodes is 3 and the number of nodes of the job step is 2', 'Leave one'),
        (NODE, ['--node-rank', '0'], '--node-rank is 0 and SLURM_NODEID is 1', 'Leave one'),
        ({'PJRT_DEVICE': 'TPU'}, ['--nproc-per-node', '4'], 'by one process, not by 4', 'Leave --nproc-per-node out'),
        ({'PJRT_DEVICE': 'TPU', **POD}, [], 'this TPU slice has 3 hosts', 'one host'),
        ({'TPU_WORKER_ID': '1', 'TPU_WORKER_HOSTNAMES': 'a,b'}, [], 'this TPU slice has 2 hosts', 'one host'),
    ],
)
def test_contradictions_are_said_and_end_with_2(monkeypatch, capsys, variables, options, message, hint):
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    assert launch.main(['--dry', *options, *TARGET]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[0] and hint in lines[-1]
