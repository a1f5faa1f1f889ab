"""All measurements that need a GPU, in at most 8 minutes: nine parts, one table, one line of JSON.

    python benchmarks/gpu.py                         all parts; needs a CUDA device
    python benchmarks/gpu.py --parts search,train    only these parts
    python benchmarks/gpu.py --output FILE           also write the JSON to a file
    python benchmarks/gpu.py --quick                 the same code on the CPU at small sizes: figures are meaningless

    tests      the tests marked gpu
    search     nearest-code search against the compiled matrix product
    train      images per second of the ImageNet VQGAN in bf16, with and without discriminator; the largest batch that fits
    vqkd       images per second of VQ-KD in bf16, and the share of its teacher
    sampling   autoregressive tokens against Hugging Face's eager generation, and as a share of the memory bandwidth
    diffusion  images per second of DiT-B/2 in training, and sampling in 50 steps against diffusers' DiT
    nccl       a process group of one: all-reduce, a step under the strategy ddp (gloo on the CPU)
    precision  losses in bf16 and fp16 against fp32 over 60 steps
    graphs     compiled steps, steps and decoding with CUDA graphs, against the same work without them

Each part first checks that its sides agree (``must_be_equal``), then times them in turns: medians of at least 7, between CUDA
events. A part that fails or exceeds its time does not stop the others: its error is in the JSON, FAILED in the table, and the
exit code is 1. When the total time is used up, the remaining parts are skipped, and the table reports that. In the table
``ratio`` is how many times better ours is than the peer, ``roof`` is ours as a share of the limit of the card.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from _common import Cell, arguments, finish, machine, show, table
from _gpu_running import Record, supervise, work

SECONDS, QUICK_SECONDS = 470.0, 600.0  # in total; --quick is for machines that do other work, too
PARTS = {  # name -> module, function, time limit in seconds
    'tests': ('_gpu_tests', 'run_tests', 100.0),
    'search': ('_gpu_search', 'search', 75.0),
    'train': ('_gpu_train', 'train', 200.0),
    'vqkd': ('_gpu_vqkd', 'vqkd', 40.0),
    'sampling': ('_gpu_sampling', 'sampling', 100.0),
    'diffusion': ('_gpu_diffusion', 'diffusion', 70.0),
    'nccl': ('_gpu_numerics', 'group_of_one', 40.0),
    'precision': ('_gpu_numerics', 'precision', 50.0),
    'graphs': ('_gpu_graphs', 'graphs', 90.0),
}
LAUNCH = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
COLUMNS = ('part', 'figure', 'peer', 'ratio', 'roof', 'aim', 'met')
NO_DEVICE = 'no CUDA device is usable here: the full form needs one. Try: python benchmarks/gpu.py --quick'


def chosen(text: str) -> list[str]:
    names = [name for name in text.split(',') if name]
    for name in names:
        if name not in PARTS:
            raise ValueError(f"there is no part '{name}'; there are {', '.join(PARTS)}")
    return [name for name in PARTS if name in names]


def options_of(argv: list[str] | None = None) -> Any:
    parser = arguments(__doc__)
    parser.add_argument('--parts', default=','.join(PARTS), metavar='A,B', help=f'of {", ".join(PARTS)} (all)')
    parser.add_argument('--output', type=Path, metavar='FILE', help='write the line of JSON to this file, too')
    parser.add_argument('--seconds', type=float, metavar='S', help=f'for the whole ({SECONDS:g})')
    # arguments of a worker
    for name, kind in (('--folder', Path), ('--until', float)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    try:
        options.parts = chosen(options.parts)
    except ValueError as error:
        parser.error(str(error))
    if options.output is not None and not options.output.absolute().parent.is_dir():
        parser.error(f'--output: there is no folder {options.output.absolute().parent}')
    return options


# the worker


def run_part(name: str, record: Record) -> None:
    """Run a part. It is imported here, so that a missing package fails this part only."""
    from _gpu_clock import release

    module, function, _ = PARTS[name]
    getattr(importlib.import_module(module), function)(record)
    release(record.device)


def worker(options: Any) -> None:
    from vq.core import environment

    environment.prepare()
    import torch

    device = torch.device('cpu' if options.quick else 'cuda')
    facts: dict[str, Any] = {'name': 'CPU', 'torch': torch.__version__}
    if device.type == 'cuda':
        found = torch.cuda.get_device_properties(0)
        facts |= {'name': found.name, 'gib': round(found.total_memory / 2**30, 1), 'cuda': torch.version.cuda}
        facts['capability'] = f'{found.major}.{found.minor}'
    (options.folder / 'device.json').write_text(json.dumps(facts))
    parts = {name: (partial(run_part, name), PARTS[name][2] * (10 if options.quick else 1)) for name in options.parts}
    work(parts, options.folder, options.quick, device, options.until)


# around it


def cells(row: dict[str, Any], part: str) -> list[Cell]:
    def of(name: str, unit: str, factor: float = 1.0) -> str | None:
        return None if row[name] is None else f'{show(factor * row[name])} {unit}'

    met = None if row['met'] is None else 'yes' if row['met'] else 'no'
    numbers = [of('figure', row['unit']), of('peer', row['unit']), of('ratio', 'x'), of('roof', '%', 100.0)]
    return [f'{part}: {row["what"]}', *numbers, row['aim'], met]


def report(device: str, results: dict[str, dict[str, Any]]) -> None:
    rows: list[list[Cell]] = []
    for name, result in results.items():
        rows += [cells(row, name) for row in result['rows']]
        if result['status'] != 'ok':
            first = (result['error'].strip().splitlines() or ['without a message'])[0]
            rows.append([f'{name}: {result["status"].upper()}: {first:.100}', *[None] * 6])
    table(device, COLUMNS, rows)
    for name, result in results.items():
        for note in result['notes']:
            print(f'{name}: {note}')


def has_device() -> bool:
    """Whether a CUDA device is usable; checked in another process, so that this one does not initialize CUDA."""
    ask = 'import torch; raise SystemExit(not torch.cuda.is_available())'
    return subprocess.run([sys.executable, '-c', ask]).returncode == 0


def main() -> int:
    options = options_of()
    if options.folder is not None:
        worker(options)
    begun = time.time()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the worker is killed, too
    where = machine()
    if not options.quick and not has_device():
        print(NO_DEVICE, file=sys.stderr)
        return 2
    until = begun + (options.seconds or (QUICK_SECONDS if options.quick else SECONDS))
    for name in LAUNCH:
        os.environ.pop(name, None)  # set by an outer launcher; this script creates its own process group of one rank
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as text:
        folder = Path(text)
        command = [sys.executable, str(Path(__file__).absolute()), '--folder', text, '--until', str(until)]
        command += ['--quick'] if options.quick else []
        command.append('--parts')
        results = supervise(command, options.parts, until, folder)
        facts = folder / 'device.json'
        device = json.loads(facts.read_text()) if facts.is_file() else {'name': 'unknown'}
    report(device['name'], results)
    for result in results.values():
        result.pop('until', None)
    seconds = time.time() - begun
    print(f'{seconds:.0f} s in all')
    failed = [name for name, result in results.items() if result['status'] == 'failed']
    figures = {'equal': not failed, 'failed': failed, 'seconds': round(seconds, 1), 'device': device, 'parts': results}
    finish('gpu', options.quick, where, figures, options.output)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
