"""Training on token shards against tokenizing images in every step, with tokenizer and generator of the demo.

    python benchmarks/token_shards.py            about 2 minutes
    python benchmarks/token_shards.py --quick    under a minute

One trainer of configs/digits/ar.py reads tokens that were written once, the other tokenizes the same images on the fly. Both
run in this process and take their steps in turns, on one thread unless OMP_NUM_THREADS is set. First, 5 steps of each must
have the same tokens and be bitwise equal.

"Feeding" is all work before the generator: reading, collating, tokenizing. A whole step adds forward and backward of the
generator. This part is the same for both, and so limits the gain of shards.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from _common import REPEATS, arguments, finish, in_turns, machine, must_be_equal, paired_ratio, rounded, table

from vq.core import environment

os.environ.setdefault('OMP_NUM_THREADS', '1')  # with one thread, CPU time is the wall time of an idle machine
environment.prepare()

import torch  # noqa: E402

from vq.assembly.compose import compose  # noqa: E402
from vq.core.random import derive_seed  # noqa: E402
from vq.core.records import Batch  # noqa: E402
from vq.registries import VQRunnerRegistry  # noqa: E402
from vq.runners.context import RunContext  # noqa: E402

CONFIG = 'digits/ar.py'
KEPT = ('TokensCallback', 'EMACallback')


class Side:
    """A trainer that runs one step, or feeds one step, at a time. The tokenizer is untrained, which does not change times."""

    def __init__(self, folder: Path, on_the_fly: bool) -> None:
        config = compose(CONFIG, {'on_the_fly': on_the_fly, 'augmentation': None, 'iters': 100_000}, {}, tiny=False)
        config.trainer.callbacks = [callback for callback in config.trainer.callbacks if callback and callback['type'] in KEPT]
        torch.manual_seed(derive_seed('parameters', 0))
        self.trainer: Any = VQRunnerRegistry.build(config.trainer, 'trainer')
        self.trainer.bind(RunContext('benchmark', folder))
        self.trainer.setup()
        self.trainer._call('before_run')
        self.trainer.model.train()
        self.trainer.batches = iter(self.trainer.open_loader())
        self.step = self.trainer.train_step

    def feed(self) -> torch.Tensor:
        batch: Batch = self.trainer._next_batch()
        tokens: torch.Tensor = self.trainer.model.tokens_of(batch)
        return tokens


def check_equal(shards: Side, images: Side, steps: int = 5) -> None:
    seen: list[list[torch.Tensor]] = []
    for side in (shards, images):
        torch.manual_seed(0)  # seed of dropout and dropped labels
        seen.append([])
        for _ in range(steps):
            side.step()
            seen[-1].append(side.trainer.model.outputs.tokens)
    must_be_equal(f'tokens of {steps} steps', all(map(torch.equal, *seen)))
    ours, theirs = shards.trainer.model.generator.state_dict(), images.trainer.model.generator.state_dict()
    must_be_equal(f'the generator after {steps} steps, bit for bit', all(torch.equal(ours[key], theirs[key]) for key in ours))


def main() -> None:
    options = arguments(__doc__).parse_args()
    where, repeats = machine(), REPEATS if options.quick else 25
    with tempfile.TemporaryDirectory() as folder:
        shards, images = Side(Path(folder) / 'shards', False), Side(Path(folder) / 'images', True)
        check_equal(shards, images)
        size = shards.trainer.batch_size
        figures: dict[str, Any] = {'batch': size}
        rows = []
        for what, name in (('feeding', 'feed'), ('whole step', 'step')):
            times = in_turns({'shards': getattr(shards, name), 'images': getattr(images, name)}, repeats)
            ours, theirs = times['shards'], times['images']
            ratio = paired_ratio(theirs.cpu, ours.cpu)
            figures[what] = {'shards': ours.figures(), 'images': theirs.figures(), 'times_as_fast': rounded(ratio)}
            rows.append(
                [what, size / ours.cpu_median, size / theirs.cpu_median, ratio, 1e3 * ours.cpu_median, 1e3 * theirs.cpu_median]
            )
    columns = ['', 'from shards, img/s', 'on the fly, img/s', 'times as fast', 'ms', 'ms on the fly']
    table(f'{size} images of 16 tokens a step, by processor time', columns, rows)
    finish('token_shards', options.quick, where, figures)


if __name__ == '__main__':
    main()
