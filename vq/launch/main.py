"""``auto_torchrun``: start a command with the processes that this machine needs.

One device, or a TPU: the same Python process. Several GPUs: one process per GPU. --nproc-per-node N: N processes. Clusters
are recognized by variables: srun's (one task per node or device), RANK and WORLD_SIZE of Kubernetes, torchrun's, PET_*.
"""

import argparse
import contextlib
import functools
import importlib.util
import os
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from vq.core.environment import COMMAND, is_set, number, on_tpu, threads
from vq.core.errors import UserError, must_agree, require
from vq.launch.place import PORT, find_place

USAGE = 'auto_torchrun [--dry] [--nproc-per-node N] [--max-restarts N] [...] (-m MODULE | SCRIPT) [ARGUMENTS ...]'
HINT = f'Usage: {USAGE}'
EXAMPLES = """
examples:
  auto_torchrun -m vq.train NAME CONFIG                                                 all GPUs of this machine
  auto_torchrun --nproc-per-node 2 --max-restarts 3 -m vq.train NAME CONFIG
  auto_torchrun --nnodes 2 --node-rank 1 --master-addr one -m vq.train NAME CONFIG      the second of two machines
  srun --ntasks-per-node=1 auto_torchrun -m vq.train NAME CONFIG                        in an sbatch script
"""
OPTIONS = {  # name of the value, allowed numbers (None: text), meaning
    'nproc-per-node': ('N', range(1, 10000), 'processes on this machine (default: one per visible GPU, or one)'),
    'max-restarts': ('N', range(10000), 'when a process dies, stop the others and restart all, at most N times'),
    'nnodes': ('N', range(1, 100000), 'machines, each with this command (default: from the cluster, or one)'),
    'node-rank': ('R', range(100000), 'rank of this machine, from 0'),
    'master-addr': ('HOST', None, 'address of the machine with node rank 0'),
    'master-port': ('P', range(1, 65536), "its port for the rendezvous (default: 29500; under SLURM from the job's id)"),
    'rdzv-endpoint': ('HOST[:P]', None, '--master-addr and --master-port in one'),
}


def make_parser(program: str, usage: str, about: str | None, examples: str) -> argparse.ArgumentParser:
    """The options of a launcher, which stand before the target."""
    parser = argparse.ArgumentParser(program, usage=usage, description=about, epilog=examples, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.error = functools.partial(require, False, hint=f'Usage: {usage}')  # type: ignore[assignment, method-assign]
    parser.add_argument('--dry', action='store_true', help='print the commands to start here, one line per process, and exit')
    for name, (metavar, _, meaning) in OPTIONS.items():
        option = parser.add_argument(*{f'--{name}': 0, f'--{name.replace("-", "_")}': 0}, metavar=metavar, help=meaning)
        option.option_strings = option.option_strings[:1]  # the help shows the first
    parser.add_argument('command', nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def own_parser() -> argparse.ArgumentParser:
    parser = make_parser('auto_torchrun', USAGE, __doc__, EXAMPLES)
    parser.add_argument('-m', dest='module', action='store_true', help='the target is a module, not a script')
    return parser


def read_options(argv: Sequence[str], parser: argparse.ArgumentParser | None = None) -> argparse.Namespace:
    """The options; torchrun's PET_ variables are defaults of theirs. ``command`` is the target with its arguments."""
    parser = parser or own_parser()
    fields, told = {name: name.replace('-', '_') for name in OPTIONS}, []
    for name, field in fields.items():
        value = os.environ.get(f'PET_{field.upper()}', '').strip()
        told += [f'--{name}={value}'] if value and value not in ('auto', 'gpu') else []  # both: the default, one per GPU
    options = parser.parse_args([*told, *argv])
    hint = f'Usage: {parser.usage}'
    require(options.command, 'nothing to start', hint)
    if is_set('PET_MASTER_ADDR') and is_set('MASTER_ADDR'):
        must_agree('PET_MASTER_ADDR', os.environ['PET_MASTER_ADDR'], 'MASTER_ADDR', os.environ['MASTER_ADDR'])
    for name, value in zip(('master-addr', 'master-port'), (options.rdzv_endpoint or '').split(':', 1), strict=False):
        said = getattr(options, fields[name])
        must_agree(f'--{name}', said, '--rdzv-endpoint', value or said)
        setattr(options, fields[name], value or said)
    least, _, most = (options.nnodes or '').partition(':')
    varying = f'--nnodes (PET_NNODES) is {options.nnodes}, a range, but a run needs a fixed number of nodes'
    require(most in ('', least), varying, 'Set the least and the largest number of replicas to the same value.')
    options.nnodes = least or options.nnodes
    for name, (_, numbers, _) in OPTIONS.items():
        if numbers and (text := getattr(options, fields[name])) is not None:
            wrong = f"--{name} needs a number from {numbers[0]} to {numbers[-1]}, not '{text}'"
            require(text.isdecimal() and int(text) in numbers, wrong, hint)
            setattr(options, fields[name], int(text))
    return options


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return start(read_options(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f'error: {error.message}', *([error.hint] if error.hint else []), sep='\n', file=sys.stderr, flush=True)
        return error.exit_code


def start(options: argparse.Namespace, typed: str = '') -> int:
    """Start the target. ``typed``: the command line for messages that repeat it (default: that of auto_torchrun)."""
    place, module = find_place(options), options.command[0] if options.module else None
    target = ['-m', *options.command] if module else options.command
    here = not options.max_restarts and place.processes == 1 and (place.nodes == 1 or place.task is not None)
    settings = threads(int(place.variables(0, 0)['LOCAL_WORLD_SIZE'])) | ({'PJRT_DEVICE': 'TPU'} if on_tpu() else {})
    alone = here and place.nodes == 1
    ranks = [{}] if alone else [place.variables(index, place.port or PORT) for index in range(place.processes)]
    if options.dry:
        for added in ranks:
            told = {**settings, **added}.items()
            new = [f'{name}={shlex.quote(value)}' for name, value in told if os.environ.get(name) != value]
            print(*new, shlex.join([Path(sys.executable).name, *([] if here else ['-u']), *target]))
        return 0
    idle = 0 if is_set('SLURM_STEP_NUM_TASKS') or is_set('RANK') else number('SLURM_JOB_NUM_NODES', 1) - 1
    if idle and place.nodes == 1:
        print(f'auto_torchrun: {idle} more nodes stay idle; srun starts one launcher on each', file=sys.stderr)
    sys.path.insert(0, os.getcwd())
    there = not module and Path(target[0]).is_file()
    with contextlib.suppress(ModuleNotFoundError):  # the parent package is missing
        there = there or bool(module and importlib.util.find_spec(module))
    require(there, f'there is no {"module" if module else "file"} {options.command[0]}', HINT)
    os.environ.update(settings | (ranks[0] if here else {COMMAND: typed or shlex.join(['auto_torchrun', *sys.argv[1:]])}))
    if not here:  # the first import of torch, after os.environ is set: OpenMP reads its variables then
        from vq.launch.agent import run

        return run(place, ['-u', *target], options.max_restarts or 0)
    sys.argv = list(options.command)
    if module:
        runpy.run_module(module, run_name='__main__', alter_sys=True)
    else:
        sys.path.insert(0, str(Path(target[0]).resolve().parent))
        runpy.run_path(target[0], run_name='__main__')
    return 0


if __name__ == '__main__':
    sys.exit(main())
