"""World size and ranks of the processes of this machine, from options and from the environment variables of clusters."""

import argparse
import dataclasses
import os
import re

from vq.core.environment import is_set, number, on_tpu, usable_gpus
from vq.core.errors import must_agree, require

HERE, PORT = '127.0.0.1', 29500  # the port is torch's default


@dataclasses.dataclass(frozen=True)
class Place:
    """``processes`` on each of the nodes. A task that srun starts for one device counts as a node."""

    processes: int = 1
    nodes: int = 1
    node: int = 0
    address: str = HERE
    port: int = 0  # 0: any free port
    task: tuple[int, int] | None = None  # local rank and local world size, if the cluster has started this process as a rank

    def variables(self, index: int, port: int) -> dict[str, str]:
        """The environment variables that torch.distributed reads, for process ``index`` of this node."""
        local_rank, local_world = self.task or (index, self.processes)
        ranks = {'RANK': str(self.node * self.processes + index), 'WORLD_SIZE': str(self.nodes * self.processes)}
        local = {'LOCAL_RANK': str(local_rank), 'LOCAL_WORLD_SIZE': str(local_world)}
        return {**ranks, **local, 'MASTER_ADDR': self.address, 'MASTER_PORT': str(port)}


def find_place(options: argparse.Namespace) -> Place:
    """The place that options and environment give. If they contradict each other, that is an error."""
    processes = options.nproc_per_node or max(1, usable_gpus())
    world, rank, tasks = number('WORLD_SIZE', 1), number('RANK', 0), number('SLURM_STEP_NUM_TASKS', 1)
    ranked = is_set('RANK') and is_set('WORLD_SIZE')
    if tasks == 1:  # with several tasks, place_of_task compares RANK and WORLD_SIZE with srun's variables
        there, missing = ('RANK', 'WORLD_SIZE') if is_set('RANK') else ('WORLD_SIZE', 'RANK')
        require(ranked or (world == 1 and rank == 0), f'{there} is set and {missing} is not', f'Set both, or unset {there}.')
        beyond = f'RANK={rank} and WORLD_SIZE={world} contradict each other'
        require(rank < world, beyond, 'Ranks count from 0 to WORLD_SIZE - 1.')
    if on_tpu():
        return place_on_tpu(options)
    if ranked and is_set('LOCAL_RANK'):  # torchrun, or a script of the user, has started this process as a rank
        unable = 'this process is a rank already, so it cannot restart the other ranks'
        require(not (options.max_restarts and is_set('TORCHELASTIC_RUN_ID')), unable, 'Give --max-restarts to torchrun.')
        task = number('LOCAL_RANK'), number('LOCAL_WORLD_SIZE', number('LOCAL_RANK') + 1)
        beyond = f'LOCAL_RANK={task[0]} and LOCAL_WORLD_SIZE={task[1]} contradict each other'
        require(task[0] < task[1], beyond, 'Unset LOCAL_WORLD_SIZE.')
        return Place(1, world, rank, *rendezvous_endpoint(world, options), task)
    if tasks > 1:
        return place_of_task(tasks, processes, options)
    require(options.nnodes or options.node_rank is None, '--node-rank is given, not the number of nodes', 'Add --nnodes N.')
    unfit = f'WORLD_SIZE={world} fits neither {options.nnodes} nodes nor {processes} processes on each of them'
    fits = not options.nnodes or not is_set('WORLD_SIZE') or world in (options.nnodes, options.nnodes * processes)
    require(fits, unfit, 'Leave --nnodes (PET_NNODES) out, or unset RANK and WORLD_SIZE.')
    if (options.nnodes or 1) > 1:
        node, said_by = options.node_rank, '--node-rank'
        for name in ('RANK', 'JOB_COMPLETION_INDEX'):  # the second one: an indexed Job of Kubernetes
            if node is None and is_set(name):
                node, said_by = number(name), name
        said = 'the rank of this node is not given' if node is None else f'{said_by} is {node}'
        known, hint = node is not None and node < options.nnodes, f'Add --node-rank R, from 0 to {options.nnodes - 1}.'
        require(known, f'there are {options.nnodes} nodes, and {said}', hint)
        return Place(processes, options.nnodes, node, *rendezvous_endpoint(options.nnodes, options))
    if ranked and not options.nnodes:  # a pod of a Kubernetes job: RANK and WORLD_SIZE count pods
        return Place(processes, world, rank, *rendezvous_endpoint(world, options), task=(0, 1) if processes == 1 else None)
    return Place(processes, address=options.master_addr or HERE, port=options.master_port or 0)


def place_on_tpu(options: argparse.Namespace) -> Place:
    """The place on a TPU: one process drives all chips (SPMD)."""
    hosts = [name for name in os.environ.get('TPU_WORKER_HOSTNAMES', '').split(',') if name.strip()]
    told = max(options.nnodes or 1, len(hosts), 1 if is_set('LOCAL_RANK') else number('WORLD_SIZE', 1))
    hint = 'Take a slice of one host, or unset WORLD_SIZE, TPU_WORKER_HOSTNAMES and --nnodes if it is one.'
    require(told == 1, f'this TPU slice has {told} hosts, but only one host is supported so far', hint)
    hint = 'Leave --nproc-per-node out, or set PJRT_DEVICE=CPU if the TPU is not to be used.'
    require(options.nproc_per_node in (None, 1), f'a TPU is driven by one process, not by {options.nproc_per_node}', hint)
    return Place()


def place_of_task(world: int, processes: int, options: argparse.Namespace) -> Place:
    """The place of a task of srun: one task per node, or one per device. Only variables are read, scontrol is not called."""
    count, node, local_rank, rank = (number(f'SLURM_{name}') for name in ('STEP_NUM_NODES', 'NODEID', 'LOCALID', 'PROCID'))
    found = re.findall(r'(\d+)(?:\(x(\d+)\))?', os.environ.get('SLURM_STEP_TASKS_PER_NODE', ''))
    tasks = [int(each) for each, times in found for _ in range(int(times or 1))]  # 4(x2),3 -> 4, 4, 3
    fits = len(tasks) == count and sum(tasks) == world and node < count and local_rank < tasks[node]
    unfit = f'SLURM_STEP_NUM_TASKS={world}, SLURM_STEP_NUM_NODES={count}, SLURM_STEP_TASKS_PER_NODE (tasks {tasks}), '
    unfit += f'SLURM_NODEID={node} and SLURM_LOCALID={local_rank} contradict each other'
    require(fits, unfit, 'Start auto_torchrun by srun, and leave the SLURM_ variables as srun sets them.')
    must_agree('RANK', os.environ.get('RANK') or None, 'SLURM_PROCID', rank)
    must_agree('WORLD_SIZE', os.environ.get('WORLD_SIZE') or None, 'SLURM_STEP_NUM_TASKS', world)
    must_agree('--nnodes', options.nnodes, 'the number of nodes of the job step', count)
    must_agree('--node-rank', options.node_rank, 'SLURM_NODEID', node)
    step = os.environ.get('SLURM_STEP_ID', '')
    port = 20000 + (number('SLURM_JOB_ID', 0) + 997 * (int(step) if step.isdecimal() else 0)) % 10000
    point = rendezvous_endpoint(world, options, first_node(os.environ.get('SLURM_STEP_NODELIST', '')), port)
    if world == count:
        return Place(processes, world, rank, *point, task=(0, 1) if processes == 1 else None)
    many = f'srun has started {tasks[node]} tasks on this node, and each would start {processes} processes'
    require(options.nproc_per_node in (None, 1), many, 'Use srun --ntasks-per-node=1, or leave --nproc-per-node out.')
    return Place(1, world, rank, *point, task=(local_rank, tasks[node]))


def first_node(text: str) -> str:
    """``rack[1-2]n[03-05,7],other`` -> rack1n03"""
    known = re.fullmatch(r'(?:[^\[\]]|\[\d[\d,-]*\])+', text)
    require(known, f"SLURM_STEP_NODELIST is '{text}', which names no nodes", 'Set it as srun does.')
    return re.sub(r'\[(\d+)[^\]]*\]', r'\1', text).partition(',')[0]


def rendezvous_endpoint(world: int, options: argparse.Namespace, host: str = '', port: int = PORT) -> tuple[str, int]:
    """Address and port of node 0. With several machines the address must be given."""
    address = options.master_addr or os.environ.get('MASTER_ADDR') or host
    hint = 'Set it to the machine of rank 0, or give --master-addr.'
    require(address or world == 1, 'MASTER_ADDR is not set, so the address of rank 0 is unknown', hint)
    return address or HERE, options.master_port or number('MASTER_PORT', port)
