"""Saving and loading a training state of 200 MB: ours against torch.save, and the bare file system (the roof).

    python benchmarks/checkpoint.py            200 MB
    python benchmarks/checkpoint.py --quick    40 MB
    python benchmarks/checkpoint.py --folder /some/disk

A third of the state is weights, the rest the two moments of AdamW. Ours writes to a temporary name, flushes to disk, hashes
every file, renames, and marks the folder complete. torch.save overwrites its target and leaves flushing to the system, so it
is also timed with a flush. Loading verifies hashes by default. Loaded tensors must be bitwise equal on both sides.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import REPEATS, arguments, finish, in_turns, machine, must_be_equal, rounded, table

from vq.core import environment

environment.prepare()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from vq.io import checkpoints  # noqa: E402
from vq.io.checkpoints import Checkpoint  # noqa: E402

TENSORS = 96


def make_state(megabytes: float) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and an optimizer state like that of AdamW, together ``megabytes`` (of 10^6 bytes)."""
    size = int(megabytes * 1e6 / 4 / 3 / TENSORS)
    model = {f'layer_{index}.weight': torch.randn(size) for index in range(TENSORS)}
    moments = {
        index: {'step': torch.tensor(100.0), 'exp_avg': torch.randn(size), 'exp_avg_sq': torch.rand(size)}
        for index in range(TENSORS)
    }
    return model, {'step': 100, 'optimizers': {'tokenizer': {'state': moments, 'param_groups': []}}}


def flush(path: Path) -> None:
    with path.open('rb') as file:
        os.fsync(file.fileno())


def folder_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob('*') if file.is_file())


def same(a: Any, b: Any) -> bool:
    """Whether containers and tensors are equal."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def sides_of(folder: Path, model: dict[str, Tensor], training: dict[str, Any]) -> dict[str, dict[str, Callable[[], Any]]]:
    ours, theirs, raw = folder / 'iter_100', folder / 'state.pt', folder / 'raw'
    state = {'model': model, 'training': training}
    content = memoryview(torch.cat([value.view(torch.uint8) for value in model.values()] * 3).numpy())

    def save_raw() -> None:
        with raw.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def save_flushed() -> None:
        torch.save(state, theirs)
        flush(theirs)

    return {
        'save': {
            'ours': lambda: checkpoints.save(folder, Checkpoint(step=100, model=model, training=training)),
            'torch.save': lambda: torch.save(state, theirs),
            'torch.save and flush': save_flushed,
            'roof: write and flush bytes': save_raw,
            'SHA-256 of the bytes': lambda: hashlib.sha256(content).digest(),
        },
        'load': {
            'ours, hashes compared': lambda: checkpoints.load(ours),
            'ours, sizes only': lambda: checkpoints.load(ours, verify=False),
            'torch.load': lambda: torch.load(theirs, weights_only=True),
            'roof: read bytes': lambda: raw.read_bytes(),
        },
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--folder', type=Path, help='where to write (a temporary folder)')
    options = parser.parse_args()
    where = machine()
    megabytes = 40.0 if options.quick else 200.0
    folder = Path(tempfile.mkdtemp(prefix='vq-checkpoint-', dir=options.folder))
    try:
        model, training = make_state(megabytes)
        sides = sides_of(folder, model, training)
        for save in sides['save'].values():
            save()
        ours, theirs = sides['load']['ours, hashes compared'](), sides['load']['torch.load']()
        must_be_equal('what ours loads and what was saved', same(ours.model, model) and same(ours.training, training))
        must_be_equal('what torch loads and what was saved', same(theirs, {'model': model, 'training': training}))
        sizes = {'ours': folder_bytes(folder / 'iter_100'), 'torch.save': (folder / 'state.pt').stat().st_size}
        figures: dict[str, Any] = {'megabytes': megabytes, 'bytes': sizes}
        for what, group in sides.items():
            times = in_turns(group, REPEATS if options.quick else 9)
            first = next(iter(times.values()))
            table(
                f'{what} {megabytes:.0f} MB',
                ('', 's', 'cpu s', 'x ours', 'MB/s'),
                [
                    (name, found.median, found.cpu_median, found.median / first.median, megabytes / found.median)
                    for name, found in times.items()
                ],
            )
            figures[what] = {
                name: {**found.figures(1.0), 'times_ours': rounded(found.median / first.median)}
                for name, found in times.items()
            }
        table('bytes', ('', 'bytes', 'of ours'), [(name, size, size / sizes['ours']) for name, size in sizes.items()])
    finally:
        shutil.rmtree(folder)
    finish('checkpoint', options.quick, where, figures)


if __name__ == '__main__':
    main()
