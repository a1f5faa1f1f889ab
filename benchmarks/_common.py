"""Shared code of all benchmarks: a description of the machine, timing in turns, tables, and the JSON line at the end.

Every benchmark first checks that the compared sides have equal results. It then times them in turns (one run of each side per
round), so that other load on the machine affects all sides alike. Times are medians of at least 7 repetitions. CPU time is
reported next to wall time, since other load changes it less. This module does not import torch.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

REPEATS = 7  # the smallest number of repetitions of a figure
PACKAGES = ('torch', 'numpy', 'safetensors', 'mmengine', 'vector-quantize-pytorch', 'faiss-cpu')

Cell = str | float | int | None

_once = False  # set by --once


class _Once(argparse.Action):
    """``--once``: for tests, which judge equality and the form of the output."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, **settings)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object) -> None:
        global _once
        _once = True
        setattr(namespace, self.dest, True)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with ``--quick``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help='under a minute: smaller sizes, fewer repetitions')
    parser.add_argument(
        '--once', action=_Once, help='time each side once: equality and output alone, the times are no figures'
    )
    return parser


def cpu_model() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), platform.machine())


def load_average() -> list[float]:
    return [round(value, 2) for value in os.getloadavg()]


def machine() -> dict[str, Any]:
    """A description of the machine. The load average is the only information about other processes."""
    versions = {'python': platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    environment = {name: os.environ[name] for name in ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY') if name in os.environ}
    return {
        'cpu': cpu_model(),
        'cores': cores,
        'versions': versions,
        'environment': environment,
        'load_before': load_average(),
    }


class Times:
    """Wall time and CPU time of one side in seconds, one entry per repetition."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def measure(self, work: Callable[[], object], calls: int = 1) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            work()
        self.cpu.append((time.process_time() - cpu) / calls)
        self.wall.append((time.perf_counter() - wall) / calls)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu)

    def figures(self, unit: float = 1e3) -> dict[str, Any]:
        """Medians and quartiles, in milliseconds by default; ``unit`` is the number of units per second."""
        low, _, high = statistics.quantiles(self.wall, n=4) if len(self.wall) > 1 else (self.wall[0],) * 3
        return {
            'median': rounded(unit * self.median),
            'quartiles': [rounded(unit * low), rounded(unit * high)],
            'cpu': rounded(unit * self.cpu_median),
            'repeats': len(self.wall),
        }


def in_turns(
    sides: Mapping[str, Callable[[], object]],
    repeats: int,
    warmup: int = 1,
    calls: int = 1,
    times_of: Callable[[], Times] = Times,
    least: int = REPEATS,
) -> dict[str, Times]:
    """Time each side once per round; the first side changes from round to round.

    ``times_of`` creates the clock of a side. ``least`` is lower only if figures are not used, as in a test. With ``--once``
    there is one round.
    """
    if _once:
        repeats, warmup, calls = 1, 0, 1
    elif repeats < least:
        raise ValueError(f'{repeats} repetitions are too few: a figure is a median of at least {least}')
    for _ in range(warmup):
        for work in sides.values():
            work()
    times = {name: times_of() for name in sides}
    names = list(sides)
    gc.collect()
    for turn in range(repeats):
        start = turn % len(names)
        for name in [*names[start:], *names[:start]]:
            times[name].measure(sides[name], calls)
    return times


def paired_ratio(ours: Sequence[float], peer: Sequence[float]) -> float:
    """The median of ours / peer over rounds, in which slow drifts cancel."""
    return statistics.median(a / b for a, b in zip(ours, peer, strict=True))


def peak_memory(work: Callable[[], object]) -> float | None:
    """Peak memory (MiB) of this process while ``work`` runs, beyond its memory before; Linux with glibc only.

    Call it after all timing: it makes the allocator return every large block to the system at once, which is slow.
    """
    try:
        library = ctypes.CDLL('libc.so.6')
        library.mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: without it freed blocks are reused, and not counted
        gc.collect()
        library.malloc_trim(0)
        Path('/proc/self/clear_refs').write_text('5')  # reset the high-water mark to the current memory
        before = _status('VmHWM')
        kept = work()
        after = _status('VmHWM')
        del kept
    except (OSError, KeyError, AttributeError):
        return None
    return (after - before) / 1024


def _status(name: str) -> int:
    lines = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines() if ':' in line)
    return int(lines[name].split()[0])


def must_be_equal(what: str, equal: bool, detail: str = '') -> None:
    """Check equality before timing: exit without figures if the sides differ."""
    if not equal:
        raise SystemExit(f'{what}: the two sides do not agree{f" ({detail})" if detail else ""}; nothing was timed')
    print(f'equal: {what}{f" ({detail})" if detail else ""}')


def rounded(value: float, digits: int = 4) -> float:
    return float(f'{value:.{digits}g}')


def show(value: Cell) -> str:
    if value is None:
        return '-'
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print a table with the first column left-aligned and figures right-aligned."""
    cells = [[show(value) for value in row] for row in rows]
    widths = [max(len(line[index]) for line in [list(columns), *cells]) for index in range(len(columns))]
    print(f'\n{title}')
    for line in [list(columns), ['-' * width for width in widths], *cells]:
        first, *rest = (
            value.ljust(width) if index == 0 else value.rjust(width)
            for index, (value, width) in enumerate(zip(line, widths, strict=True))
        )
        print('  '.join([first, *rest]).rstrip())


def finish(
    benchmark: str, quick: bool, where: Mapping[str, Any], figures: Mapping[str, Any], output: Path | None = None
) -> None:
    """Print the machine, then one line of JSON with everything; also write that line to the file ``output``."""
    after = load_average()
    print(
        f'\n{where["cpu"]}, {where["cores"]} cores; torch {where["versions"].get("torch")}, Python '
        f'{where["versions"]["python"]}; load average {where["load_before"][0]} before, {after[0]} after'
    )
    if max(where['load_before'][0], after[0]) > where['cores']:
        print('the machine was busy with other work: these figures are upper bounds, and ratios are less reliable')
    if _once:
        print('each side was timed once: these times are no figures')
    line = json.dumps(
        {
            'benchmark': benchmark,
            'quick': quick,
            'once': _once,
            'equal': True,
            **figures,
            'machine': {**where, 'load_after': after},
        }
    )
    if output is not None:
        output.write_text(f'{line}\n')
    print(line)
