"""Environment variables of vq, the cores and GPUs of this process, and the variables to set before torch is imported."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from vq.core.errors import UserError

COMMAND = 'VQ_COMMAND'  # a variable of ranks: the launcher's command line, for messages that say which command to repeat
# variables of TPU virtual machines and GKE; TPU_NAME and others are also set on machines without a TPU
TPU = ('TPU_WORKER_ID', 'TPU_WORKER_HOSTNAMES', 'TPU_ACCELERATOR_TYPE', 'TPU_CHIPS_PER_HOST_BOUNDS', 'TPU_HOST_BOUNDS')


def dry_run() -> bool:
    """DRY_RUN=True in the environment: every command runs the ``tiny`` form of its config."""
    return os.environ.get('DRY_RUN', '').lower() in ('1', 'true', 'yes')


def is_set(name: str) -> bool:
    return bool(os.environ.get(name, '').strip())


def number(name: str, default: int | None = None) -> int:
    """A variable that holds a count or a rank."""
    text = os.environ.get(name, '').strip()
    if not text and default is not None:
        return default
    if not text.isdecimal():
        raise UserError(f"{name} is '{text}', which is not a number", f'Unset {name}, or set it as the cluster does.')
    return int(text)


def ranks() -> int:
    """The number of processes that train or measure together, as launchers set it for torch.distributed."""
    return number('WORLD_SIZE', 1) if is_set('RANK') else 1


def need_one_process(what: str, otherwise: str = '') -> None:
    """Refuse several ranks for ``what``, which one process does. ``otherwise``: what to do besides starting one."""
    if ranks() > 1:
        raise UserError(
            f'{what} uses one process, and there are {ranks()}: each would do all the work and write the same files',
            f'Start one: auto_torchrun --nproc-per-node 1.{otherwise}',
        )


def usable_cores() -> int:
    """Cores this process can use, by its CPU affinity and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    try:
        with open('/sys/fs/cgroup/cpu.max') as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == 'max' else max(1, min(cores, int(quota) // int(period)))


def usable_gpus() -> int:
    """NVIDIA GPUs this process can use, counted without importing torch."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is not None:  # CUDA ignores everything from the first invalid entry on
        entries = [entry.strip() for entry in visible.split(',')]
        return len(list(itertools.takewhile(lambda entry: entry not in ('', '-1'), entries)))
    devices = Path('/proc/driver/nvidia/gpus')
    return len(list(devices.iterdir())) if devices.is_dir() else 0


def on_tpu() -> bool:
    """Whether this is a TPU machine, and the user has not chosen another device."""
    device = os.environ.get('PJRT_DEVICE', '').upper()
    return device == 'TPU' if device else any(os.environ.get(name) for name in TPU)


def threads(local_processes: int) -> dict[str, str]:
    """OpenMP variables for each of ``local_processes`` on this machine, except those that the user has set.

    An OpenMP thread that waits by spinning occupies its core: with one core busy with another process, a training step
    took seven times as long. ``passive`` makes waiting threads sleep.
    """
    count = max(1, usable_cores() // max(1, local_processes))
    wanted = {'OMP_NUM_THREADS': str(count), 'OMP_WAIT_POLICY': 'passive'}
    return {name: value for name, value in wanted.items() if name not in os.environ}


def prepare() -> None:
    """Set the OpenMP variables of this process. A launcher of several processes has set LOCAL_WORLD_SIZE."""
    os.environ.update(threads(int(os.environ.get('LOCAL_WORLD_SIZE', '1') or 1)))
