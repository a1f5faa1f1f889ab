"""What srun tells its tasks, read without asking scontrol."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re

from vq.core.errors import UserError

_GROUP = re.compile(r'\[([^\[\]]*)\]')


@dataclasses.dataclass(frozen=True)
class Task:
    """One task of a job step."""

    rank: int
    world: int
    local_rank: int
    local_world: int
    node: int
    nodes: list[str]
    port: int  # the same for all tasks of the step

    @property
    def one_a_node(self) -> bool:
        return self.world == len(self.nodes)


def read_task() -> Task | None:
    """The task that srun started as this process, if it started others beside it."""
    if read_number('SLURM_STEP_NUM_TASKS', 1) < 2:
        return None
    world, node, local_rank = (read_number(name) for name in ('SLURM_STEP_NUM_TASKS', 'SLURM_NODEID', 'SLURM_LOCALID'))
    nodes = expand_nodes(os.environ.get('SLURM_STEP_NODELIST', ''))
    tasks = expand_tasks(os.environ.get('SLURM_STEP_TASKS_PER_NODE', ''))
    rank = read_number('SLURM_PROCID')
    expected = read_number('SLURM_STEP_NUM_NODES', len(nodes))
    if not len(nodes) == len(tasks) == expected or sum(tasks) != world or node >= len(nodes) or local_rank >= tasks[node]:
        raise UserError(
            f'SLURM_STEP_NUM_TASKS={world}, SLURM_STEP_NUM_NODES={expected}, SLURM_NODEID={node}, SLURM_LOCALID={local_rank}, '
            f'SLURM_STEP_TASKS_PER_NODE (tasks {tasks}) and SLURM_STEP_NODELIST (nodes {", ".join(nodes)}) '
            'contradict each other',
            'Start auto_torchrun by srun, and leave the SLURM_ variables as srun sets them.',
        )
    return Task(rank, world, local_rank, tasks[node], node, nodes, port_of_step())


def port_of_step() -> int:
    """Always the same for one step; even, for launchers use the one above it too."""
    job, step = read_number('SLURM_JOB_ID', 0), os.environ.get('SLURM_STEP_ID', '0')
    return 20000 + 2 * ((job + 997 * (int(step) if step.isdecimal() else 0)) % 10000)


def expand_nodes(text: str) -> list[str]:
    """``node[01-03,07],rack[1-2]n[3,5]`` -> node01, node02, node03, node07, rack1n3, rack1n5, rack2n3, rack2n5."""
    if re.search(r'[\[\]]', _GROUP.sub('', text)):
        raise UserError(f"the node list '{text}' has a bracket too many or too few", 'Set SLURM_STEP_NODELIST as srun does.')
    names = []
    for part in re.findall(r'(?:[^,\[]|\[[^\]]*\])+', text):  # split at commas outside of brackets
        pieces = _GROUP.split(part)  # text, group, text, group, ..., text
        choices = [expand_group(piece) if index % 2 else [piece] for index, piece in enumerate(pieces)]
        names += [''.join(chosen) for chosen in itertools.product(*choices)]
    return names


def expand_group(text: str) -> list[str]:
    """``01-03,07`` -> 01, 02, 03, 07: as wide as they are written."""
    found: list[str] = []
    for part in text.split(','):
        match = re.fullmatch(r'(\d+)(?:-(\d+))?', part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UserError(f"'{part}' in a node list is no range of numbers", 'Set SLURM_STEP_NODELIST as srun does.')
        found += [f'{number:0{len(match[1])}d}' for number in range(int(match[1]), int(match[2] or match[1]) + 1)]
    return found


def expand_tasks(text: str) -> list[int]:
    """``4(x2),3`` -> 4, 4, 3: tasks of each node."""
    matches = [re.fullmatch(r'(\d+)(?:\(x(\d+)\))?', part) for part in text.split(',')]
    return [int(match[1]) for match in matches if match is not None for _ in range(int(match[2] or 1))]


def read_number(name: str, default: int | None = None) -> int:
    """A variable that holds a count or a rank."""
    text = os.environ.get(name, '').strip()
    if not text and default is not None:
        return default
    if not text.isdecimal():
        raise UserError(f"{name} is '{text}', which is no number", f'Unset {name}, or set it as the cluster does.')
    return int(text)
