"""What must be set before torch is imported: how threads wait, and how many there are."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores this process may use: affinity, and the quota of a container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    try:
        with open('/sys/fs/cgroup/cpu.max') as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == 'max' else max(1, min(cores, int(quota) // int(period)))


def prepare(local_processes: int | None = None) -> None:
    """Sensible OpenMP settings where the user has made none.

    An OpenMP thread that waits by spinning keeps its core from whoever shares the machine: with one other busy core a
    training step took seven times as long. ``passive`` makes waiting threads sleep. Threads: the usable cores divided
    by the processes of this machine.
    """
    processes = local_processes or int(os.environ.get('LOCAL_WORLD_SIZE', '1') or 1)
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, usable_cores() // max(1, processes))))
