"""Times and memory of a device, and its limits: the rates of a matrix product and of a copy."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Mapping

import torch
from _common import REPEATS, Times, in_turns, rounded
from _gpu_running import Record

QUICK_REPEATS = 3  # for --quick, whose figures are meaningless


class DeviceTimes(Times):
    """Seconds between two CUDA events; wall time on a CPU."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def measure(self, work: Callable[[], object], calls: int = 1) -> None:
        if self.device.type != 'cuda':
            super().measure(work, calls)
            return
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        cpu = time.process_time()
        before.record()
        for _ in range(calls):
            work()
        after.record()
        after.synchronize()
        self.cpu.append((time.process_time() - cpu) / calls)
        self.wall.append(before.elapsed_time(after) / 1e3 / calls)


def timed(
    record: Record, sides: Mapping[str, Callable[[], object]], warmup: int = 1, calls: int = 1, repeats: int = REPEATS
) -> dict[str, Times]:
    """Time the sides in turns, at least 7 times after a warm-up; with --quick 3 times without a warm-up."""
    clock = functools.partial(DeviceTimes, record.device)
    if record.quick:
        return in_turns(sides, QUICK_REPEATS, 0, 1, clock, QUICK_REPEATS)
    return in_turns(sides, repeats, warmup, calls, clock)


def peak_mib(device: torch.device, work: Callable[[], object]) -> float | None:
    """Peak memory of tensors on the device while ``work`` runs, including tensors from before; None on a CPU."""
    if device.type != 'cuda':
        work()
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return rounded(torch.cuda.max_memory_allocated() / 2**20)


def release(device: torch.device) -> None:
    """Release cached memory of the device and compiled code."""
    gc.collect()
    torch.compiler.reset()
    if device.type == 'cuda':
        torch.cuda.empty_cache()


def product_rate(record: Record, dtype: torch.dtype = torch.bfloat16) -> float:
    """FLOP/s of a large square matrix product; a multiplication and an addition count as two."""
    size = 256 if record.quick else 8192
    # random numbers: a product of zeros draws less power, so the power limit would not slow the card down
    left, right = (torch.randn(size, size, device=record.device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    spent = timed(record, {'product': lambda: torch.mm(left, right, out=out)}, warmup=3, calls=10)['product'].median
    return 2.0 * size**3 / spent


def copy_rate(record: Record) -> float:
    """Bytes per second of a copy between two long vectors; bytes read and bytes written both count."""
    count = 2**22 if record.quick else 2**31
    source, target = (torch.ones(count, dtype=torch.uint8, device=record.device) for _ in range(2))
    spent = timed(record, {'copy': lambda: target.copy_(source)}, warmup=3, calls=5)['copy'].median
    return 2.0 * count / spent
