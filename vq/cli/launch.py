"""``auto_torchrun``: start a command the way this machine wants it.

One device, or a TPU: the same Python process. Several GPUs, or ``--nproc-per-node N``: torchrun. Of a cluster, the variables
that its tasks find are enough: those of torchrun itself, of srun (one task a device, or one task a node), and RANK and
WORLD_SIZE of a Kubernetes job (one pod a node, or a device).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import os
import re
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from vq.cli import environment, several
from vq.cli.errors import command
from vq.core.errors import UserError

USAGE = 'auto_torchrun [--nproc-per-node N] [--dry] (-m MODULE | SCRIPT) [ARGUMENTS ...]'


@dataclasses.dataclass(frozen=True)
class Node:
    """This machine among several, each of which starts its own processes."""

    count: int
    rank: int
    address: str
    port: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to start here."""

    target: list[str]
    processes: int
    dry: bool = False
    node: Node | None = None
    variables: dict[str, str] = dataclasses.field(default_factory=dict)  # for a task that the cluster has started

    def command(self) -> list[str]:
        """The command line, without the interpreter."""
        if self.processes == 1:
            return self.target
        place = ['--standalone']
        if self.node:
            place = [f'--nnodes={self.node.count}', f'--node-rank={self.node.rank}']
            place += [f'--master-addr={self.node.address}', f'--master-port={self.node.port}']
        return ['-m', 'torch.distributed.run', *place, f'--nproc-per-node={self.processes}', *self.target]


def count_gpus() -> int:
    """NVIDIA GPUs this process may use, without importing torch."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is not None:  # CUDA ignores everything from the first invalid entry on
        entries = [entry.strip() for entry in visible.split(',')]
        return len(list(itertools.takewhile(lambda entry: entry not in ('', '-1'), entries)))
    devices = Path('/proc/driver/nvidia/gpus')
    return len(list(devices.iterdir())) if devices.is_dir() else 0


def slurm_variables() -> dict[str, str]:
    """What torch.distributed asks for, of a task that srun started beside others; nothing anywhere else."""
    if int(os.environ.get('SLURM_STEP_NUM_TASKS') or 1) < 2:
        return {}
    spread = os.environ.get('SLURM_STEP_TASKS_PER_NODE', '1')  # 4(x2),3: four on each of two nodes, three on the next
    pairs = [(int(tasks), int(nodes or 1)) for tasks, nodes in re.findall(r'(\d+)(?:\(x(\d+)\))?', spread)]
    on_nodes = [tasks for tasks, nodes in pairs for _ in range(nodes)]
    # node[03-05,7],other: the first node is node03
    first = re.match(r'([^\[,]+)(?:\[(\w+)[^\]]*\])?([^,]*)', os.environ.get('SLURM_STEP_NODELIST', 'localhost'))
    return {
        'RANK': os.environ['SLURM_PROCID'],
        'WORLD_SIZE': os.environ['SLURM_STEP_NUM_TASKS'],
        'LOCAL_RANK': os.environ['SLURM_LOCALID'],
        'LOCAL_WORLD_SIZE': str(on_nodes[int(os.environ.get('SLURM_NODEID') or 0)]),
        'MASTER_ADDR': os.environ.get('MASTER_ADDR') or (''.join(part or '' for part in first.groups()) if first else ''),
        'MASTER_PORT': os.environ.get('MASTER_PORT') or str(20000 + int(os.environ.get('SLURM_JOB_ID') or 0) % 20000),
    }


def plan(argv: Sequence[str]) -> Plan:
    """What the arguments and the environment ask for."""
    target, processes, dry = read_flags(argv)
    here = processes if processes is not None else max(1, count_gpus())
    variables = os.environ if 'RANK' in os.environ and 'WORLD_SIZE' in os.environ else slurm_variables()
    if not variables:
        return Plan(target, here, dry)
    added = {} if variables is os.environ else dict(variables)
    size, one_a_node = int(variables['WORLD_SIZE']), 'LOCAL_RANK' not in variables
    if added:
        one_a_node = size == int(os.environ.get('SLURM_STEP_NUM_NODES') or 1)
    if here == 1 or not one_a_node:
        return Plan(target, 1, dry, variables=added)
    node = Node(size, int(variables['RANK']), variables.get('MASTER_ADDR', 'localhost'), variables.get('MASTER_PORT', '29500'))
    return Plan(target, here, dry, node if size > 1 else None)


def read_flags(argv: Sequence[str]) -> tuple[list[str], int | None, bool]:
    """What to start, in how many processes on this node if that was said, and whether only to print it."""
    rest, processes, dry = list(argv), None, False
    while rest and rest[0].startswith('-') and rest[0] != '-m':
        flag, _, value = rest.pop(0).partition('=')
        if flag == '--dry':
            dry = True
        elif flag in ('--nproc-per-node', '--nproc_per_node'):
            value = value or (rest.pop(0) if rest else '')
            if not value.isdecimal() or int(value) < 1:
                raise UserError(f"--nproc-per-node needs a number of processes, not '{value}'", f'Usage: {USAGE}')
            processes = int(value)
        elif flag in ('-h', '--help'):
            print(f'usage: {USAGE}\n\n{__doc__}')
            raise SystemExit(0)
        else:
            raise UserError(f"auto_torchrun has no option '{flag}'", f'Usage: {USAGE}')
    if not rest or rest == ['-m']:
        raise UserError('nothing to start', f'Usage: {USAGE}')
    return rest, processes, dry


@command
def main(argv: Sequence[str] | None = None) -> int:
    found = plan(sys.argv[1:] if argv is None else argv)
    if found.dry:
        settings = [f'{name}={shlex.quote(value)}' for name, value in found.variables.items()]
        print(' '.join([*settings, shlex.join([Path(sys.executable).name, *found.command()])]))
        return 0
    os.environ.update(found.variables)
    if found.processes == 1:
        environment.prepare()
        return run_here(found.target)
    environment.prepare(found.processes)
    return several.run(found.command())


def run_here(target: list[str]) -> int:
    """Run ``-m MODULE ...`` or ``SCRIPT ...`` in this process; its exit code is ours."""
    sys.path.insert(0, os.getcwd())
    as_module = target[0] == '-m'
    if not (is_module(target[1]) if as_module else Path(target[0]).is_file()):
        what = f'there is no module {target[1]}' if as_module else f'there is no file {target[0]}'
        raise UserError(f'cannot start {" ".join(target[:2])}: {what}', f'Usage: {USAGE}')
    sys.argv = target[1:] if as_module else list(target)
    try:
        if as_module:
            runpy.run_module(target[1], run_name='__main__', alter_sys=True)
        else:
            sys.path.insert(0, str(Path(target[0]).resolve().parent))
            runpy.run_path(target[0], run_name='__main__')
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    return 0


def is_module(name: str) -> bool:
    """Whether Python finds this module (its parents are imported for that)."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


if __name__ == '__main__':
    sys.exit(main())
