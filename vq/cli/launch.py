"""``auto_torchrun``: start a command the way this machine wants it.

One device, or a TPU: the same Python process. Several GPUs, or --nproc-per-node N: one process each. Of a cluster, the
variables that its tasks find are enough: those of srun (one task a node, or one a device), RANK and WORLD_SIZE of a
Kubernetes job (one pod a node, or a device), torchrun's own and its PET_ variables.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from vq.cli import cluster, environment
from vq.cli.cluster import Options, Place
from vq.cli.errors import command
from vq.core.errors import UserError

USAGE = 'auto_torchrun [--dry] [--nproc-per-node N] [--max-restarts N] [...] (-m MODULE | SCRIPT) [ARGUMENTS ...]'

HELP = """
options, all of them before the target:
  --dry                      print what would be started on this machine, one line a process, and start nothing
  --nproc-per-node N         processes on this machine (default: one per visible GPU, or one)
  --max-restarts N           when a process dies, stop the others and start all of them again, at most N times;
                             vq.train then goes on from its newest checkpoint
  --nnodes N                 machines, on each of which this command is started (default: as the cluster says, or one)
  --node-rank R              which of them this is, from 0
  --master-addr HOST         the machine with node rank 0
  --master-port P            its port for the ranks; launchers meet on P + 1 (default: 29500; by the job's id under SLURM)
  --rdzv-endpoint HOST[:P]   the two above in one

examples:
  auto_torchrun -m vq.train NAME CONFIG --config-options strategy::ddp                  all GPUs of this machine
  auto_torchrun --nproc-per-node 2 --max-restarts 3 -m vq.train NAME CONFIG --config-options strategy::ddp
  auto_torchrun --nnodes 2 --node-rank 0 --master-addr one -m vq.train NAME CONFIG      on the machine 'one'
  auto_torchrun --nnodes 2 --node-rank 1 --master-addr one -m vq.train NAME CONFIG      on the other
  srun --ntasks-per-node=1 auto_torchrun -m vq.train NAME CONFIG                        in an sbatch script
"""

FLAGS = ('nproc-per-node', 'max-restarts', 'nnodes', 'node-rank', 'master-addr', 'master-port', 'rdzv-endpoint')
NUMBERS = {
    'nproc-per-node': ('processes', 1),
    'max-restarts': ('max_restarts', 0),
    'nnodes': ('nodes', 1),
    'node-rank': ('node_rank', 0),
    'master-port': ('port', 1),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to start here."""

    target: list[str]
    place: Place
    max_restarts: int = 0
    settings: dict[str, str] = dataclasses.field(default_factory=dict)  # for every process, beside what its rank needs

    @property
    def here(self) -> bool:
        """Whether this process itself becomes the only one."""
        return not self.max_restarts and self.place.processes == 1 and (self.place.own or self.place.world == 1)

    def command(self) -> list[str]:
        return [sys.executable, *([] if self.here else ['-u']), *self.target]

    def variables(self, index: int, port: int) -> dict[str, str]:
        """What is added to the environment of a process."""
        ranked = {} if self.here and (self.place.world == 1 or self.place.complete) else self.place.variables(index, port)
        added = {**self.settings, **ranked}
        return {name: value for name, value in added.items() if os.environ.get(name) != value}

    def lines(self) -> list[str]:
        """The processes of this machine as one would type them into a shell."""
        from vq.cli import ports

        port = self.place.port or ports.free_port()
        found = []
        for index in range(self.place.processes):
            settings = [f'{name}={shlex.quote(value)}' for name, value in self.variables(index, port).items()]
            found.append(' '.join([*settings, shlex.join([Path(sys.executable).name, *self.command()[1:]])]))
        return found


def plan(argv: Sequence[str]) -> Plan:
    """What the arguments and the environment ask for."""
    target, given = split_flags(argv)
    options = read_options(given)
    place = cluster.find_place(options)
    settings = thread_settings(place.local_world if place.own else place.processes)
    if cluster.on_tpu() and not cluster.is_set('PJRT_DEVICE'):
        settings['PJRT_DEVICE'] = 'TPU'
    return Plan(target, place, options.max_restarts, settings)


def thread_settings(processes: int) -> dict[str, str]:
    """What ``environment.prepare`` would set; here it is set in the processes that are started."""
    before = set(os.environ)
    environment.prepare(processes)
    added = {name: os.environ[name] for name in set(os.environ) - before}
    for name in added:
        del os.environ[name]
    return dict(sorted(added.items()))


# options


def split_flags(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What to start, and the options before it."""
    rest, given = list(argv), {}
    while rest and rest[0].startswith('-') and rest[0] != '-m':
        flag, equals, value = rest.pop(0).partition('=')
        name = flag.removeprefix('--').replace('_', '-')
        if flag in ('-h', '--help'):
            print(f'usage: {USAGE}\n\n{__doc__}{HELP}')
            raise SystemExit(0)
        if flag.startswith('--') and name in FLAGS:
            if not equals and not rest:
                raise UserError(f"{flag} needs a value, not ''", f'Usage: {USAGE}')
            given[name] = value if equals else rest.pop(0)
        elif flag == '--dry':
            given[name] = 'yes'
        else:
            raise UserError(f"auto_torchrun has no option '{flag}'", f'Usage: {USAGE}')
    if not rest or rest == ['-m']:
        raise UserError('nothing to start', f'Usage: {USAGE}')
    return rest, given


def read_options(given: dict[str, str]) -> Options:
    """The options, or what torchrun's PET_ variables say in their place."""
    told = {f'--{name}': value for name, value in given.items() if name in FLAGS}
    for name in FLAGS:
        variable = 'PET_' + name.upper().replace('-', '_')
        value = os.environ.get(variable, '').strip()
        if value and f'--{name}' not in told and value not in ('auto', 'gpu'):  # these two: one process per GPU
            told[variable] = fixed_number(variable, value)
    found: dict[str, int | str] = {}
    for label, value in told.items():
        name = label.removeprefix('--').removeprefix('PET_').lower().replace('_', '-')
        if name in NUMBERS:
            field, least = NUMBERS[name]
            found[field] = to_number(label, value, least)
            continue
        host, colon, port = value.rpartition(':') if name == 'rdzv-endpoint' and ':' in value else (value, '', '')
        if not host:
            raise UserError(f"{label} needs the name of a machine, not '{value}'", f'Usage: {USAGE}')
        cluster.must_agree(label, host, 'the address that was given before', found.setdefault('address', host))
        if colon:
            number = to_number(label, port, 1)
            cluster.must_agree(label, number, 'the port that was given before', found.setdefault('port', number))
    if 'PET_MASTER_ADDR' in told and cluster.is_set('MASTER_ADDR'):
        cluster.must_agree('PET_MASTER_ADDR', told['PET_MASTER_ADDR'], 'MASTER_ADDR', os.environ['MASTER_ADDR'])
    return Options(**found)  # type: ignore[arg-type]


def fixed_number(variable: str, value: str) -> str:
    """``2:2`` nodes are 2; a range has no meaning here."""
    least, colon, most = value.partition(':')
    if variable != 'PET_NNODES' or not colon or least == most:
        return least if variable == 'PET_NNODES' else value
    raise UserError(
        f'PET_NNODES={value} is a range, and a run has a fixed number of nodes: its batches depend on it',
        'Set the least and the largest number of replicas to the same value.',
    )


def to_number(label: str, value: str, least: int) -> int:
    what = {'nproc-per-node': 'of processes', 'nnodes': 'of nodes'}.get(label.removeprefix('--'), f'from {least}')
    if not value.isdecimal() or int(value) < least:
        raise UserError(f"{label} needs a number {what}, not '{value}'", f'Usage: {USAGE}')
    if label.lower().endswith(('port', 'endpoint')) and int(value) > 65534:
        raise UserError(f"{label} is '{value}', and ports end at 65534 here", f'Usage: {USAGE}')
    return int(value)


# starting


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    found = plan(arguments)
    if 'dry' in split_flags(arguments)[1]:
        print('\n'.join(found.lines()))
        return 0
    idle = cluster.idle_nodes()
    if idle and found.place.world == found.place.processes:
        print(
            f'auto_torchrun: {idle} more nodes of this allocation stay idle; srun starts one launcher on each', file=sys.stderr
        )
    sys.path.insert(0, os.getcwd())
    check_target(found.target)
    if found.here:
        os.environ.update(found.variables(0, found.place.port or cluster.PORT))
        return run_here(found.target)
    from vq.cli.agent import Agent

    return Agent(found).run()


def check_target(target: list[str]) -> None:
    as_module = target[0] == '-m'
    if not (is_module(target[1]) if as_module else Path(target[0]).is_file()):
        what = f'there is no module {target[1]}' if as_module else f'there is no file {target[0]}'
        raise UserError(f'cannot start {" ".join(target[:2])}: {what}', f'Usage: {USAGE}')


def run_here(target: list[str]) -> int:
    """Run ``-m MODULE ...`` or ``SCRIPT ...`` in this process; its exit code is ours."""
    as_module = target[0] == '-m'
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
