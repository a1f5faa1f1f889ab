"""Kills at random moments: every command resumes to the same bytes.

    python benchmarks/faults.py                 40 kills and 12 signals of ten kinds of work, about 25 minutes on two cores
    python benchmarks/faults.py --quick         6 kills, of a smaller tokenizer

Each kind of work runs once without a fault. The digest of its results is the expected one. Then it is started again, killed
(SIGKILL) or signalled (SIGTERM, SIGUSR1, SIGINT) at a random moment, and continued by the same command until it ends. The
digest must be the expected one. Moments are drawn from ``--seed`` and the duration of the first run, so every phase is hit:
start-up, steps, writing checkpoints, evaluation, writing token shards and pictures.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from _common import arguments, finish, machine, must_be_equal, table
from _same_runs import digests, last_checkpoint, whole
from _same_trees import ROOT, environment

KILLS, QUICK_KILLS, SIGNALS = 40, 6, 12
MOST_STARTS = 20  # of one work; a kill comes once, so more starts than two mean that something else is wrong


class Work(NamedTuple):
    """A command that is continued by the command ``again``, and the folder below ``work_dirs`` that holds its results."""

    name: str
    first: Sequence[str]
    again: Sequence[str]
    results: str
    digest: Callable[[Path], str]
    signals: bool = False  # writes a checkpoint on a signal


def training(name: str, config: str, *options: str) -> Work:
    given = ['-m', 'vq.train', name, f'configs/{config}.py', '--config-options', *options]
    return Work(name, given, [*given, '--auto-resume'], name, state, signals=True)


def state(run: Path) -> str:
    """The digest of weights, their average and the state of the optimizers at the end."""
    checkpoint = last_checkpoint(run)
    of_weights = whole(digests(checkpoint))
    optimizers = torch.load(checkpoint / 'training.pt', weights_only=True)['optimizers']
    return hashlib.sha256((of_weights + digest_of(optimizers)).encode()).hexdigest()


def digest_of(value: object) -> str:
    """The SHA-256 of plain containers of tensors and numbers."""
    found = hashlib.sha256()
    if isinstance(value, torch.Tensor):
        found.update(f'{value.dtype} {tuple(value.shape)}'.encode() + value.contiguous().numpy().tobytes())
    elif isinstance(value, Mapping):
        for name, part in value.items():
            found.update(f'{name} {digest_of(part)}'.encode())
    elif isinstance(value, list | tuple):
        for part in value:
            found.update(digest_of(part).encode())
    else:
        found.update(repr(value).encode())
    return found.hexdigest()


def files(folder: Path) -> str:
    """The digest of names and bytes of all files of results, without logs."""
    found = hashlib.sha256()
    for file in sorted(
        path for path in folder.rglob('*') if path.is_file() and path.suffix in ('.npz', '.png', '.safetensors')
    ):
        found.update(f'{file.relative_to(folder)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n'.encode())
    return found.hexdigest()


def upon(name: str, module: str, config: str, source: str, *more: str, options: Sequence[str] = ()) -> Work:
    given = ['-m', module, name, f'configs/{config}.py', '--load-model-from', f'work_dirs/{source}', *more]
    given += ['--config-options', *options] if options else []
    return Work(
        f'{name} {module.rpartition(".")[2]}',
        given,
        given,
        f'{name}_{"sample" if module.endswith("sample") else "tokenize"}',
        files,
    )


def caching(name: str, source: str) -> Work:
    """Write the latents of a tokenizer."""
    given = ['-m', 'vq.data', 'latents', f'work_dirs/{source}', '--load-model-from', f'work_dirs/{source}']
    given += ['--output-folder', f'work_dirs/{name}', '--shard-size', '128']
    return Work(name, given, given, name, files)


LITTLE = ('iters:60', 'save_every:20', 'dim:32', 'depth:2', 'heads:2', 'evaluate:None', 'times::loss_second_moment')
WORKS = (
    training('ema', 'digits/vq_ema', 'iters:80', 'save_every:20'),
    training('gan', 'digits/vqgan', 'iters:60', 'start:20', 'save_every:20'),
    training('kl', 'digits/kl', 'iters:60', 'save_every:20'),
    training('classifier', 'ic/digits', 'iters:60', 'save_every:20'),
    training('ar', 'digits/ar', 'iters:60', 'save_every:20', 'tokenizer_run::ema'),
    upon('ema', 'vq.tasks.image_tokenization.tokenize', 'digits/vq_ema', 'ema', '--train'),
    upon('ar', 'vq.sample', 'digits/ar', 'ar', '--num-samples', '120', options=['tokenizer_run::ema']),
    training('diffusion', 'diffusion/digits', *LITTLE, 'tokenizer_run::ema'),
    caching('latents', 'kl'),
    training('cached', 'diffusion/digits_cached', *LITTLE, 'tokenizer_run::kl', 'latents::work_dirs/latents'),
)
SMALL = ('iters:80', 'save_every:20', 'width:4', 'features:16', 'batch_size:8')
QUICK_WORKS = (
    training('ema', 'digits/vq_ema', *SMALL),
    upon('ema', 'vq.tasks.image_tokenization.tokenize', 'digits/vq_ema', 'ema', '--train', options=SMALL),
)


PYTHON = [sys.executable]


def start(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*PYTHON, *command], cwd=folder, env=environment(ROOT), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finished(process: subprocess.Popen[bytes], what: str) -> None:
    errors = process.communicate()[1]
    if process.returncode:
        raise SystemExit(f'{what} ended with exit code {process.returncode}:\n{errors.decode()[-2000:]}')


def undisturbed(work: Work, folder: Path) -> tuple[str, float]:
    """The digest of a run without a fault, and its seconds."""
    began = time.perf_counter()
    finished(start(work.first, folder), work.name)
    return work.digest(folder / 'work_dirs' / work.results), time.perf_counter() - began


def disturbed(work: Work, folder: Path, fault: signal.Signals, moment: float) -> tuple[str, int]:
    """The digest of a run with a fault at ``moment`` seconds, and how many starts it took. Work that ends before the moment
    is done again, with half of the time.
    """
    while True:
        clear(work, folder)
        process = start(work.first, folder)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(fault)
            process.communicate()
            break
        moment /= 2
    starts = 1
    while process.returncode and starts < MOST_STARTS:
        process, starts = start(work.again, folder), starts + 1
        errors = process.communicate()[1]
        if process.returncode:
            raise SystemExit(f'{work.name} does not go on after {fault.name} at {moment:.2f} s:\n{errors.decode()[-2000:]}')
    return work.digest(folder / 'work_dirs' / work.results), starts


def clear(work: Work, folder: Path) -> None:
    """Delete the results, but not the runs that a later work loads."""
    shutil.rmtree(folder / 'work_dirs' / work.results, ignore_errors=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--python', default=sys.executable, metavar='PROGRAM', help='starts the commands (this interpreter)')
    options = parser.parse_args()
    PYTHON[:] = [options.python]
    facts, draw = machine(), random.Random(options.seed)
    works = QUICK_WORKS if options.quick else WORKS
    kills = QUICK_KILLS if options.quick else KILLS
    faults = [(works[index % len(works)], signal.SIGKILL) for index in range(kills)]
    if not options.quick:
        able = [work for work in works if work.signals]
        kinds = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
        faults += [(able[index % len(able)], kinds[index % len(kinds)]) for index in range(SIGNALS)]
    with tempfile.TemporaryDirectory() as place:
        found = measure(works, faults, Path(place), draw)
    for key, (same, count, _) in found.items():
        must_be_equal(f'{key}: results after a fault and without', same == count, f'{same} of {count} faults')
    rows = [[*key.split(', '), count, same, restarted] for key, (same, count, restarted) in found.items()]
    table('faults', ['work', 'fault', 'faults', 'same bytes', 'of these interrupted'], rows)
    finish('faults', options.quick, facts, {'faults': {key: list(value) for key, value in found.items()}})


def measure(
    works: Sequence[Work], faults: Sequence[tuple[Work, signal.Signals]], place: Path, draw: random.Random
) -> Mapping[str, tuple[int, int, int]]:
    """Work and fault -> faults with the same bytes, all faults, those that came before the work had ended."""
    found: dict[str, tuple[int, int, int]] = {}
    for work in works:
        expected, seconds = undisturbed(work, place)
        for fault in (fault for other, fault in faults if other is work):
            digest, starts = disturbed(work, place, fault, draw.uniform(0, seconds))
            same, count, interrupted = found.get(f'{work.name}, {fault.name}', (0, 0, 0))
            found[f'{work.name}, {fault.name}'] = same + (digest == expected), count + 1, interrupted + (starts > 1)
            print(
                f'{work.name}: {fault.name}, {starts} starts, {"the same" if digest == expected else "OTHER BYTES"}',
                flush=True,
            )
    return found


if __name__ == '__main__':
    main()
