"""Where the processes of this machine stand among all: from options, and from the variables that clusters set."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path

from vq.cli import slurm
from vq.cli.slurm import read_number
from vq.core.errors import UserError

PORT = 29500  # torch's own default
HERE = '127.0.0.1'
# set on TPU virtual machines and by GKE; TPU_NAME and the like are also set where there is no TPU
TPU_VARIABLES = (
    'TPU_WORKER_ID',
    'TPU_WORKER_HOSTNAMES',
    'TPU_ACCELERATOR_TYPE',
    'TPU_CHIPS_PER_HOST_BOUNDS',
    'TPU_HOST_BOUNDS',
)


@dataclasses.dataclass(frozen=True)
class Options:
    """What was said before the target, or by the PET_ variables of torchrun."""

    processes: int | None = None
    nodes: int | None = None
    node_rank: int | None = None
    address: str | None = None
    port: int | None = None
    max_restarts: int = 0


@dataclasses.dataclass(frozen=True)
class Place:
    """The processes that this launcher starts, and the launchers that make up the run with it."""

    processes: int = 1
    world: int = 1
    first: int = 0  # rank of its first process
    local_first: int = 0  # and the rank of that on this machine
    local_world: int = 1
    launchers: int = 1
    index: int = 0
    address: str = HERE
    port: int | None = None  # None: a free one
    own: bool = False  # the cluster has started this process as a rank: it need not start another
    complete: bool = False  # and has told it everything that torch asks for

    def variables(self, index: int, port: int) -> dict[str, str]:
        """What torch.distributed asks for, of the process ``index`` of this launcher."""
        return {
            'RANK': str(self.first + index),
            'WORLD_SIZE': str(self.world),
            'LOCAL_RANK': str(self.local_first + index),
            'LOCAL_WORLD_SIZE': str(self.local_world),
            'MASTER_ADDR': self.address,
            'MASTER_PORT': str(port),
        }


def one_machine(processes: int, options: Options) -> Place:
    return Place(processes, processes, local_world=processes, address=options.address or HERE, port=options.port)


def several_nodes(nodes: int, rank: int, processes: int, address: str, port: int, own: bool = False) -> Place:
    """As many processes on each."""
    if nodes == 1:
        return Place(processes, processes, local_world=processes, address=address, port=port, own=own and processes == 1)
    world = nodes * processes
    return Place(processes, world, rank * processes, 0, processes, nodes, rank, address, port, own=own and processes == 1)


def one_task(rank: int, world: int, local_rank: int, local_world: int, address: str, port: int, complete: bool) -> Place:
    """One of the tasks that the cluster started, each of which is a rank."""
    return Place(1, world, rank, local_rank, local_world, world, rank, address, port, own=True, complete=complete)


def find_place(options: Options) -> Place:
    """What the options and the environment say. They must not contradict each other."""
    check_rank()
    if on_tpu():
        return place_on_tpu(options)
    ranked = is_set('RANK') and is_set('WORLD_SIZE')
    if ranked and is_set('LOCAL_RANK'):
        return place_of_rank(options)
    task = slurm.read_task()
    if task is not None:
        return place_in_slurm(task, options)
    if options.nodes is None and options.node_rank is not None:
        raise UserError('--node-rank says which node this is, and not how many there are', 'Add --nnodes N.')
    if options.nodes is not None:
        return place_by_options(options.nodes, options)
    if ranked:
        return place_of_pod(options)
    return one_machine(options.processes or max(1, count_gpus()), options)


def check_rank() -> None:
    """RANK and WORLD_SIZE belong together."""
    world, rank = read_number('WORLD_SIZE', 1), read_number('RANK', 0)
    if read_number('SLURM_STEP_NUM_TASKS', 1) > 1:
        return  # compared with SLURM's own
    if is_set('RANK') != is_set('WORLD_SIZE') and (world != 1 or rank != 0):
        there, missing = ('RANK', 'WORLD_SIZE') if is_set('RANK') else ('WORLD_SIZE', 'RANK')
        raise UserError(f'{there} is set and {missing} is not', f'Set both, or unset {there}.')
    if rank >= world:
        raise UserError(f'RANK={rank} and WORLD_SIZE={world} contradict each other', 'Ranks count from 0 to WORLD_SIZE - 1.')


def must_agree(name: str, value: object, other: str, other_value: object) -> None:
    if value is not None and str(value) != str(other_value):
        raise UserError(
            f'{name} is {value} and {other} is {other_value}', 'Leave one of the two out: they say the same thing.'
        )


def is_set(name: str) -> bool:
    return bool(os.environ.get(name, '').strip())


# kinds of places


def on_tpu() -> bool:
    device = os.environ.get('PJRT_DEVICE', '').upper()
    return device == 'TPU' if device else any(os.environ.get(name) for name in TPU_VARIABLES)


def place_on_tpu(options: Options) -> Place:
    """One process drives all chips (SPMD)."""
    hosts = [name for name in os.environ.get('TPU_WORKER_HOSTNAMES', '').split(',') if name.strip()]
    told = [options.nodes or 1, read_number('WORLD_SIZE', 1) if not is_set('LOCAL_RANK') else 1, len(hosts)]
    if max(told) > 1:
        raise UserError(
            f'this TPU slice has {max(told)} hosts, and one host is what is supported so far',
            'Take a slice of one host, or unset WORLD_SIZE, TPU_WORKER_HOSTNAMES and --nnodes if it is one.',
        )
    if (options.processes or 1) > 1:
        raise UserError(
            f'a TPU is driven by one process, not by {options.processes}',
            'Leave --nproc-per-node out, or set PJRT_DEVICE=CPU if the TPU is not meant.',
        )
    return Place()


def place_of_rank(options: Options) -> Place:
    """A process that torchrun, or a script of the user, has started as a rank."""
    world = read_number('WORLD_SIZE')
    if options.max_restarts and is_set('TORCHELASTIC_RUN_ID'):
        raise UserError('this process is a rank already: it cannot start the others again', 'Give --max-restarts to torchrun.')
    address = given_address(options, world)
    local_rank = read_number('LOCAL_RANK')
    local_world = read_number('LOCAL_WORLD_SIZE', local_rank + 1)
    if local_rank >= local_world:
        raise UserError(
            f'LOCAL_RANK={local_rank} and LOCAL_WORLD_SIZE={local_world} contradict each other', 'Unset LOCAL_WORLD_SIZE.'
        )
    port = options.port or read_number('MASTER_PORT', PORT)
    return one_task(read_number('RANK'), world, local_rank, local_world, address, port, complete=True)


def place_in_slurm(task: slurm.Task, options: Options) -> Place:
    """srun has started one task a node, or one task a device."""
    for name, value in (('RANK', task.rank), ('WORLD_SIZE', task.world)):
        if is_set(name):
            must_agree(name, read_number(name), 'what srun says', value)
    must_agree('--nnodes', options.nodes, 'the number of nodes of the job step', len(task.nodes))
    must_agree('--node-rank', options.node_rank, 'SLURM_NODEID', task.node)
    address = options.address or os.environ.get('MASTER_ADDR') or task.nodes[0]
    port = options.port or read_number('MASTER_PORT', task.port)
    processes = options.processes or max(1, count_gpus())
    if task.one_a_node:
        return several_nodes(task.world, task.rank, processes, address, port, own=True)
    if (options.processes or 1) > 1:
        raise UserError(
            f'srun has started {task.local_world} tasks on this node, and each would start {options.processes} processes',
            'Take srun --ntasks-per-node=1, or leave --nproc-per-node out.',
        )
    return one_task(task.rank, task.world, task.local_rank, task.local_world, address, port, complete=False)


def place_by_options(nodes: int, options: Options) -> Place:
    """``--nnodes N``, or PET_NNODES as Kubeflow sets it: what else is known must fit."""
    processes = options.processes or max(1, count_gpus())
    world = read_number('WORLD_SIZE', nodes)
    if world not in (nodes, nodes * processes):
        raise UserError(
            f'WORLD_SIZE={world} fits neither {nodes} nodes nor {processes} processes on each of them',
            'Leave --nnodes (PET_NNODES) out, or unset RANK and WORLD_SIZE.',
        )
    rank, said_by = options.node_rank, '--node-rank'
    for name in ('RANK', 'JOB_COMPLETION_INDEX'):  # the second one: an indexed Job of Kubernetes
        if rank is None and is_set(name):
            rank, said_by = read_number(name), name
    if nodes == 1:
        return one_machine(processes, options)
    if rank is None or rank >= nodes:
        what = 'which of them this is was not said' if rank is None else f'{said_by} is {rank}'
        raise UserError(f'there are {nodes} nodes, and {what}', f'Add --node-rank R, from 0 to {nodes - 1}.')
    address = given_address(options, nodes)
    return several_nodes(nodes, rank, processes, address, options.port or read_number('MASTER_PORT', PORT))


def place_of_pod(options: Options) -> Place:
    """RANK and WORLD_SIZE of a Kubernetes job: they count its pods."""
    nodes = read_number('WORLD_SIZE')
    processes = options.processes or max(1, count_gpus())
    address = given_address(options, nodes)
    port = options.port or read_number('MASTER_PORT', PORT)
    return several_nodes(nodes, read_number('RANK'), processes, address, port, own=True)


def given_address(options: Options, world: int) -> str:
    """Where ranks meet, which must be said where there are several machines."""
    address = options.address or os.environ.get('MASTER_ADDR')
    if not address and world > 1:
        raise UserError(
            'MASTER_ADDR is not set, so nobody knows where to meet', 'Set it to the machine of rank 0, or say --master-addr.'
        )
    return address or HERE


# what is there


def count_gpus() -> int:
    """NVIDIA GPUs this process may use, without importing torch."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is not None:  # CUDA ignores everything from the first invalid entry on
        entries = [entry.strip() for entry in visible.split(',')]
        return len(list(itertools.takewhile(lambda entry: entry not in ('', '-1'), entries)))
    devices = Path('/proc/driver/nvidia/gpus')
    return len(list(devices.iterdir())) if devices.is_dir() else 0


def idle_nodes() -> int:
    """Nodes of a SLURM allocation that nothing is started on, because srun was not used."""
    if is_set('SLURM_STEP_NUM_TASKS') or is_set('RANK'):
        return 0
    return read_number('SLURM_JOB_NUM_NODES', 1) - 1
