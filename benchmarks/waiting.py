"""The effect of the launcher's OpenMP settings: training steps next to a busy process, with and without these settings.

    python benchmarks/waiting.py
    python benchmarks/waiting.py --quick

By default an OpenMP thread that waits for other threads spins and occupies its core, so that a thread with work has to wait
for a spinning one. All commands of vq set OMP_WAIT_POLICY=passive and OMP_NUM_THREADS, unless the user has set them. Each case
trains in separate processes, in turns: {left alone, as the commands set them, one thread} x {quiet, one core kept busy by
another process}. Trainings with the same number of threads must be bitwise equal.

On a machine with other work, "quiet" is not idle: see the load average.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from _common import REPEATS, arguments, finish, machine, must_be_equal, rounded, table

from vq.core import environment

SETTINGS = ('OMP_WAIT_POLICY', 'OMP_NUM_THREADS')
CASES = ('left alone', 'as set', 'one thread')
BUSY = 'while True: pass'
WIDTH, WARMUP = 8, 2


def work(steps: int, levels: int) -> None:
    """The child process: train, and print seconds per step and a digest of the parameters."""
    import hashlib

    import torch

    from vq.registries import VQModelRegistry

    torch.manual_seed(0)
    shape = {
        'width': WIDTH,
        'multipliers': (1, 2, 2, 4)[:levels],
        'attention_levels': (),
        'refine': False,
        'residual_blocks': 1,
    }
    model = VQModelRegistry.build(
        {
            'type': 'VQGAN',
            'encoder': {'type': 'ConvEncoder', 'out_channels': 64, **shape},
            'post_encode': {'type': 'ConvConnector'},
            'quantizer': {'type': 'VectorQuantizer', 'codebook_size': 256, 'embedding_dim': 16},
            'pre_decode': {'type': 'ConvConnector', 'out_channels': 64},
            'decoder': {'type': 'ConvDecoder', **shape},
        }
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images = torch.rand(16, 3, 32, 32) * 2 - 1
    seconds = []
    for _ in range(WARMUP + steps):
        start = time.perf_counter()
        reconstruction, quantized = model(images)
        loss = torch.nn.functional.mse_loss(reconstruction, images) + sum(quantized.losses.values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    digest = hashlib.sha256(b''.join(value.detach().numpy().tobytes() for value in model.state_dict().values())).hexdigest()
    print(json.dumps({'seconds': seconds[WARMUP:], 'digest': digest, 'threads': torch.get_num_threads()}))


def settings_of(case: str) -> dict[str, str]:
    """The environment of a child."""
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    if case == 'left alone':
        return clean
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(clean)
    environment.prepare()
    given = dict(os.environ)
    os.environ.update(before)
    return {**given, 'OMP_NUM_THREADS': '1'} if case == 'one thread' else given


def train(case: str, busy: bool, steps: int, levels: int) -> dict[str, Any]:
    """One training in a separate process, with or without a busy process next to it."""
    given, clean = settings_of(case), settings_of('left alone')
    command = [sys.executable, __file__, '--steps', str(steps), '--levels', str(levels)]
    neighbour = subprocess.Popen([sys.executable, '-c', BUSY], env=clean) if busy else None
    try:
        done = subprocess.run(command, env=given, capture_output=True, text=True)
    finally:
        if neighbour is not None:
            neighbour.kill()
            neighbour.wait()
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--steps', type=int, help='be the child: train so many steps')
    parser.add_argument('--levels', type=int, default=4, help='of the network that the child trains')
    options = parser.parse_args()
    if options.steps is not None:
        work(options.steps, options.levels)
        return
    where = machine()
    rounds, steps, levels = (1, REPEATS, 2) if options.quick else (3, 10, 4)
    seconds: dict[tuple[str, bool], list[float]] = {(case, busy): [] for busy in (False, True) for case in CASES}
    digests: dict[int, set[str]] = {}
    for _ in range(rounds):
        for (case, busy), found_so_far in seconds.items():
            found = train(case, busy, steps, levels)
            found_so_far += found['seconds']
            digests.setdefault(found['threads'], set()).add(found['digest'])
    # the order of summation depends on the number of threads; with the same number results are bitwise equal
    must_be_equal(
        'parameters at the end of all trainings with one number of threads',
        all(len(found) == 1 for found in digests.values()),
        f'{sorted(digests)} threads',
    )
    medians = {key: 1e3 * statistics.median(values) for key, values in seconds.items()}
    rows, figures = [], {}
    for busy, label in ((False, 'quiet'), (True, 'one core busy')):
        values = [medians[case, busy] for case in CASES]
        rows.append((label, *values, values[0] / values[1]))
        figures[label] = {
            **{case: rounded(value) for case, value in zip(CASES, values, strict=True)},
            'gain': rounded(values[0] / values[1]),
        }
    table('ms per step', ('', *CASES, 'gain'), rows)
    print(f'  the roof: the fastest of all, {min(medians.values()):.4g} ms; gain: left alone / as set')
    finish('waiting', options.quick, where, {'ms': figures, 'steps': rounds * steps, 'threads': sorted(digests)})


if __name__ == '__main__':
    main()
