"""``auto_torchrun``: start a command the way this machine wants it.

One device: the same Python process. Several GPUs, or ``--nproc-per-node N``: torchrun. Inside torchrun, Kubernetes or
any launcher that has set RANK and WORLD_SIZE: the same process again.
"""

from __future__ import annotations

import os
import runpy
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
    if visible is not None:
        return len([entry for entry in visible.split(',') if entry.strip() not in ('', '-1')])
    devices = Path('/proc/driver/nvidia/gpus')
    return len(list(devices.iterdir())) if devices.is_dir() else 0


def plan(argv: Sequence[str]) -> tuple[int, list[str], bool]:
    """Processes to start, the command for them, and whether only to print it."""
    rest, processes, dry = list(argv), None, False
    while rest and rest[0].startswith('--'):
        flag, _, value = rest.pop(0).partition('=')
        if flag == '--dry':
            dry = True
        elif flag in ('--nproc-per-node', '--nproc_per_node'):
            value = value or (rest.pop(0) if rest else '')
            if not value.isdigit() or int(value) < 1:
                raise UserError(f"--nproc-per-node needs a number of processes, not '{value}'", f'Usage: {USAGE}')
            processes = int(value)
        elif flag == '--help':
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
            print(' '.join([Path(sys.executable).name, *target]))
            return 0
        environment.prepare()
        return run_here(target)
    launcher = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={processes}', *target]
    if dry:
        print(' '.join([Path(sys.executable).name, *launcher]))
        return 0
    environment.prepare(processes)
    os.execv(sys.executable, [sys.executable, *launcher])


def run_here(target: list[str]) -> int:
    """Run ``-m MODULE ...`` or ``SCRIPT ...`` in this process; its exit code is ours."""
    sys.path.insert(0, os.getcwd())
    try:
        if target[0] == '-m':
            sys.argv = [target[1], *target[2:]]
            runpy.run_module(target[1], run_name='__main__', alter_sys=True)
        else:
            sys.argv = list(target)
            runpy.run_path(target[0], run_name='__main__')
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (ImportError, FileNotFoundError) as error:
        if target[0] == '-m' and getattr(error, 'name', None) not in (None, target[1]):
            raise
        raise UserError(f'cannot start {" ".join(target[:2])}: {error}', f'Usage: {USAGE}') from error
    return 0


if __name__ == '__main__':
    sys.exit(main())
