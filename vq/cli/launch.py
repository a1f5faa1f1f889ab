"""``auto_torchrun``: start a command the way this machine wants it.

One device: the same Python process. Several GPUs, or ``--nproc-per-node N``: torchrun. Inside torchrun, Kubernetes or
any launcher that has set RANK and WORLD_SIZE: the same process again.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from vq.cli import environment
from vq.cli.errors import command
from vq.core.errors import UserError

USAGE = 'auto_torchrun [--nproc-per-node N] [--dry] (-m MODULE | SCRIPT) [ARGUMENTS ...]'


def count_gpus() -> int:
    """NVIDIA GPUs this process may use, without importing torch."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is not None:  # CUDA ignores everything from the first invalid entry on
        entries = [entry.strip() for entry in visible.split(',')]
        return len(list(itertools.takewhile(lambda entry: entry not in ('', '-1'), entries)))
    devices = Path('/proc/driver/nvidia/gpus')
    return len(list(devices.iterdir())) if devices.is_dir() else 0


def plan(argv: Sequence[str]) -> tuple[int, list[str], bool]:
    """Processes to start, the command for them, and whether only to print it."""
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
    if 'RANK' in os.environ and 'WORLD_SIZE' in os.environ:
        return 1, rest, dry
    return processes if processes is not None else max(1, count_gpus()), rest, dry


@command
def main(argv: Sequence[str] | None = None) -> int:
    processes, target, dry = plan(sys.argv[1:] if argv is None else argv)
    if processes == 1:
        if dry:
            print(shlex.join([Path(sys.executable).name, *target]))
            return 0
        environment.prepare()
        return run_here(target)
    launcher = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={processes}', *target]
    if dry:
        print(shlex.join([Path(sys.executable).name, *launcher]))
        return 0
    environment.prepare(processes)
    os.execv(sys.executable, [sys.executable, *launcher])


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
