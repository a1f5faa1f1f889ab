"""The overhead of the trainer: its loop against a bare torch loop with the same network, batches and optimizer.

    python benchmarks/runner.py            about 4 minutes
    python benchmarks/runner.py --quick    under a minute

Both run in this process and take their steps in turns, on one thread unless OMP_NUM_THREADS is set. First, after 12 steps of
each, parameters, codebook and moving average must be bitwise equal. The width is chosen so that a bare step takes about 50 ms
(``--width`` sets it).

The bare loop is typical code written by hand: torch's DataLoader, fused AdamW, ``clip_grad_norm_``, a moving average by
``_foreach_lerp_``, the mean loss read every 50 steps. The trainer runs its standard callbacks. Some of them have no
counterpart in the bare loop (guard, pictures, alarm, preemption) and count as overhead.

The overhead is the median, over rounds, of ours / bare - 1, in wall time and in CPU time, which depends less on other work on
the machine. The breakdown removes one part at a time.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _common import REPEATS, Times, arguments, finish, machine, must_be_equal, paired_ratio, rounded, table

from vq.core import environment

os.environ.setdefault('OMP_NUM_THREADS', '1')  # with one thread, CPU time is the wall time of an idle machine
environment.prepare()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from vq.assembly.compose import compose  # noqa: E402
from vq.core.random import derive_seed  # noqa: E402
from vq.core.records import Batch  # noqa: E402
from vq.data.plan import training_plan  # noqa: E402
from vq.registries import VQRunnerRegistry  # noqa: E402
from vq.runners.context import RunContext  # noqa: E402

CONFIG = 'digits/vq_ema.py'
TARGET_SECONDS = 0.050
EVERY = 50  # steps between two readings of the loss
CLIP, DECAY, WARMUP = 1.0, 0.99, 50
PICTURES = ('ImageGridCallback', 'CheckpointCallback', 'GitCallback', 'ProgressCallback')  # rare


def config_of(width: int, iters: int, drop: tuple[str, ...] = ()) -> Any:
    """The digits config without evaluation (not part of a step) and without callbacks named in ``drop``."""
    config = compose(CONFIG, {'width': width, 'iters': iters}, {}, tiny=False)
    config.trainer.callbacks = [
        callback for callback in config.trainer.callbacks if callback and callback['type'] not in (*drop, 'EvalCallback')
    ]
    return config


class Ours:
    """A trainer that runs one step at a time."""

    def __init__(self, width: int, folder: Path, drop: tuple[str, ...] = (), held: list[Batch] | None = None) -> None:
        torch.manual_seed(derive_seed('parameters', 0))
        self.trainer = VQRunnerRegistry.build(config_of(width, 10_000, drop).trainer, 'trainer')
        self.trainer.bind(RunContext('benchmark', folder))
        self.trainer.setup()
        self.trainer._call('before_run')
        self.trainer.batches = iter(self.trainer.open_loader()) if held is None else itertools.cycle(held)
        self.step: Callable[[], object] = self.trainer.train_step

    def average(self) -> dict[str, Tensor]:
        return next((callback.shadow for callback in self.trainer.callbacks.values() if hasattr(callback, 'load_shadow')), {})


class Bare:
    """The same training as a loop written by hand."""

    def __init__(self, width: int, averaged: bool = True, held: list[Batch] | None = None) -> None:
        torch.manual_seed(derive_seed('parameters', 0))
        trainer = VQRunnerRegistry.build(config_of(width, 10_000).trainer, 'trainer')
        self.model, self.dataset = trainer.model.train(), trainer.dataset
        self.tokenizer = self.model.tokenizer
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
        self.state = dict(self.model.state_dict())
        self.shadow = {name: value.clone() for name, value in self.state.items()} if averaged else {}
        self.schedule = trainer.step_settings['tokenizer'].schedule
        self.schedule.bind(10_000)
        self.done, self.sum = 0, torch.zeros(())
        self.batches = self._load(trainer.dataloader.batch_size) if held is None else itertools.cycle(b.image for b in held)

    def _load(self, batch_size: int) -> Iterator[Tensor]:
        plan = training_plan(len(self.dataset), batch_size, 0, 1, 3407)
        samples = _Images(self.dataset)
        return iter(torch.utils.data.DataLoader(samples, batch_sampler=plan))  # type: ignore[arg-type]

    def step(self) -> None:
        for group in self.optimizer.param_groups:
            group['lr'] = 2e-3 * self.schedule(self.done + 1)
        image = next(self.batches).float() / 127.5 - 1
        quantized = self.tokenizer.quantize(self.tokenizer.encode(image))
        reconstruction = self.tokenizer.decode(quantized.z)
        loss = torch.nn.functional.mse_loss(reconstruction, image) + 0.25 * quantized.losses['commitment']
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.tokenizer.update()
        self.done += 1
        if self.shadow:
            self._average()
        self.sum += loss.detach()
        if self.done % EVERY == 0:
            self.mean = self.sum.item() / EVERY
            self.sum.zero_()

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(DECAY, (1 + self.done) / (10 + self.done))
        names = [name for name, value in self.state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.shadow[n] for n in names], [self.state[n] for n in names], 1 - decay)
        for name in self.state.keys() - set(names):
            self.shadow[name].copy_(self.state[name])


@dataclasses.dataclass
class _Images:
    """A dataset in torch's usual form: index -> image (3, H, W) uint8."""

    dataset: Any

    def __getitem__(self, place: tuple[int, int]) -> Tensor:
        return torch.from_numpy(self.dataset.read(place[1])).permute(2, 0, 1)


def choose_width(target: float) -> int:
    """The width with a bare step closest to ``target`` seconds of CPU time per thread."""
    found = {}
    for width in (4, 8, 16, 24, 32, 48, 64):
        bare, times = Bare(width), Times()
        for _ in range(3):
            bare.step()
        for _ in range(REPEATS):
            times.measure(bare.step)
        found[width] = times.cpu_median / torch.get_num_threads()
        if found[width] > target:
            break
    return min(found, key=lambda width: abs(found[width] - target))


def check_equal(width: int, folder: Path, steps: int = 12) -> None:
    ours, bare = Ours(width, folder), Bare(width)
    for _ in range(steps):
        ours.step()
        bare.step()
    mine, theirs = ours.trainer.model.state_dict(), bare.model.state_dict()
    wrong = [name for name in theirs if not torch.equal(mine[name], theirs[name])]
    must_be_equal(f'parameters and codebook after {steps} steps, bit for bit', not wrong, ', '.join(wrong[:3]))
    wrong = [name for name in theirs if not torch.equal(ours.average()[name], bare.shadow[name])]
    must_be_equal(f'moving average after {steps} steps, bit for bit', not wrong, ', '.join(wrong[:3]))


def race(ours: Callable[[], object], bare: Callable[[], object], seconds: float) -> dict[str, Any]:
    """Run steps in turns for about ``seconds``; the first side alternates from round to round."""
    for _ in range(3):
        ours()
        bare()
    sides = {'ours': (ours, Times()), 'bare': (bare, Times())}
    end = time.perf_counter() + seconds
    for turn in itertools.count():
        if turn >= REPEATS and time.perf_counter() > end:
            break
        for name in (('ours', 'bare'), ('bare', 'ours'))[turn % 2]:
            work, times = sides[name]
            times.measure(work)
    mine, theirs = sides['ours'][1], sides['bare'][1]
    return {
        'ours': mine.figures(),
        'bare': theirs.figures(),
        'overhead_cpu': rounded(100 * (paired_ratio(mine.cpu, theirs.cpu) - 1)),
        'overhead_wall': rounded(100 * (paired_ratio(mine.wall, theirs.wall) - 1)),
        'overhead_ms': rounded(1e3 * statistics.median(a - b for a, b in zip(mine.cpu, theirs.cpu, strict=True))),
    }


def breakdown(width: int, folder: Path, seconds: float) -> dict[str, dict[str, Any]]:
    """The breakdown: one part less each time."""
    held = _hold(width)
    optional = ('CodebookAlarmCallback', 'PreemptionCallback', *PICTURES)
    found = {
        'all callbacks of the config': race(Ours(width, folder / 'a').step, Bare(width).step, seconds),
        'without pictures, checkpoints, bar': race(Ours(width, folder / 'b', PICTURES).step, Bare(width).step, seconds),
        'and without alarm, preemption': race(Ours(width, folder / 'c', optional).step, Bare(width).step, seconds),
        'and without EMA, in both': race(
            Ours(width, folder / 'd', (*optional, 'EMACallback')).step, Bare(width, averaged=False).step, seconds
        ),
        'and with batches made before': race(
            Ours(width, folder / 'e', (*optional, 'EMACallback'), held).step,
            Bare(width, averaged=False, held=held).step,
            seconds,
        ),
    }
    without_guard = Ours(width, folder / 'f', (*optional, 'EMACallback', 'LogCallback'), held)
    trainer = without_guard.trainer
    trainer.guard.observe = lambda name, losses: None
    trainer.guard.decide = lambda name, step, norm=None: trainer.guard.ok
    found['and without guard, log'] = race(without_guard.step, Bare(width, averaged=False, held=held).step, seconds)
    return found


def _hold(width: int) -> list[Batch]:
    trainer = VQRunnerRegistry.build(config_of(width, 1).trainer, 'trainer')
    trainer.strategy.start()
    trainer.context = RunContext('held', Path())
    with trainer.open_loader() as loader:
        return list(itertools.islice(loader, 16))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--width', type=int, help='channels of the first level, in place of the choice for 50 ms')
    parser.add_argument('--seconds', type=float, help='how long each comparison takes (60; with --quick 8)')
    options = parser.parse_args()
    logging.getLogger('vq').addHandler(logging.NullHandler())
    logging.getLogger('vq').propagate = False
    where, started = machine(), time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        width = options.width or choose_width(TARGET_SECONDS)
        check_equal(width, folder / 'equal')
        seconds = options.seconds or (8.0 if options.quick else 60.0)
        whole = race(Ours(width, folder / 'whole').step, Bare(width).step, seconds)
        parts = breakdown(width, folder, seconds / 2 if options.quick else seconds / 3)
    table(
        f'ms per step, width {width}, batches of 16, {torch.get_num_threads()} threads',
        ('', 'wall', 'cpu'),
        [
            ('ours: Trainer', whole['ours']['median'], whole['ours']['cpu']),
            ('bare torch loop (the roof)', whole['bare']['median'], whole['bare']['cpu']),
            ('overhead, %', whole['overhead_wall'], whole['overhead_cpu']),
        ],
    )
    table(
        'overhead over the bare loop',
        ('', 'ms cpu', '% cpu', '% wall'),
        [(name, found['overhead_ms'], found['overhead_cpu'], found['overhead_wall']) for name, found in parts.items()],
    )
    finish(
        'runner',
        options.quick,
        where,
        {'width': width, 'whole': whole, 'breakdown': parts, 'seconds': round(time.perf_counter() - started, 1)},
    )


if __name__ == '__main__':
    main()
