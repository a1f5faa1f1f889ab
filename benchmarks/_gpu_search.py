"""Nearest-code search against the full matrix product compiled by torch.compile; sides and checks are those of code_search.py.

The roof is the matrix product alone in fp32, written to memory, without a search.
"""

from __future__ import annotations

import code_search as peers
import torch
from _common import paired_ratio, rounded
from _gpu_clock import peak_mib, timed
from _gpu_running import Aim, Record

SHAPES: list[peers.Shape] = [(8192, 2**13, 256), (4096, 2**14, 8), (4096, 2**14, 256), (4096, 2**18, 8), (4096, 2**18, 256)]
QUICK: list[peers.Shape] = [(64, 1024, 8)]
AIM = Aim('ratio', 2.0)


@torch.no_grad()
def search(record: Record) -> None:
    for shape in QUICK if record.quick else SHAPES:
        one_shape(record, shape)


def one_shape(record: Record, shape: peers.Shape) -> None:
    name = 'N={} K={} D={}'.format(*shape)
    features, codes = (value.to(record.device) for value in peers.inputs(shape))
    # on a CPU the C++ compiler would take most of the time; the part graphs uses it
    sides = peers.sides_on_device(features, codes, 'inductor' if features.is_cuda else 'aot_eager')
    best = peers.truth_of(features, codes)
    for side, work in sides.items():
        peers.check(f'{side} at {name}', features, codes, work(), best)
    memory = {side: peak_mib(record.device, work) for side, work in sides.items()}
    scores = torch.empty(len(features), len(codes), device=record.device)
    product = {peers.ROOF: lambda: torch.mm(features, codes.t(), out=scores)}
    times = timed(record, {**sides, **product}, warmup=3, calls=5, repeats=9)
    ours = times[peers.KERNEL]
    record.keep(name, {side: {**time.figures(), 'peak_mib': memory.get(side)} for side, time in times.items()})
    record.row(
        name,
        1e3 * ours.median,
        'ms',
        peer=1e3 * times[peers.COMPILED].median,
        ratio=paired_ratio(times[peers.COMPILED].wall, ours.wall),
        roof=paired_ratio(times[peers.ROOF].wall, ours.wall),
        aim=AIM,
    )
    record.keep(f'{name}, times of the torch path', rounded(paired_ratio(times[peers.TORCH_PATH].wall, ours.wall)))
