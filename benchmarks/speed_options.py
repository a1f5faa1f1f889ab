"""The effect of a strategy's speed options on an adversarial training step on this machine: time, peak memory, compilation.

    python benchmarks/speed_options.py            VGG LPIPS, 64 pixels, batches of 8, about 10 minutes, most of it compilation
    python benchmarks/speed_options.py --quick    no LPIPS, 32 pixels, two levels

The same task under BaseStrategy with one option each, against no option: torch.compile with inductor (of the autoencoder, of
all usual parts), channels_last, activation checkpointing, and combinations. First, losses and gradients of both optimizers at
step 1 are checked for equality. Then whole steps are timed in turns, in this process; ratios are of CPU time, paired by round.
Memory is the peak of a step beyond the memory before it. Compilation is the wall time of the first step, including processes
of the C++ compiler, with an empty cache. Networks have random weights. These figures do not apply to a GPU.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

from _common import arguments, finish, in_turns, machine, must_be_equal, paired_ratio, peak_memory, rounded, table

from vq.core import environment

os.environ.setdefault('OMP_NUM_THREADS', '1')  # with one thread, CPU time is the wall time of an idle machine
environment.prepare()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from vq.core.records import Batch  # noqa: E402
from vq.registries import VQStrategyRegistry, VQTaskRegistry  # noqa: E402

AUTOENCODER = ['tokenizer.encoder', 'tokenizer.quantizer', 'tokenizer.decoder']
OPTIONS: dict[str, dict[str, Any]] = {
    'eager': {},
    'channels_last': {'channels_last': True},
    'checkpoint_activations': {'checkpoint_activations': True},
    'compile, decoder': {'compile': {'parts': ['tokenizer.decoder']}},
    'compile, autoencoder': {'compile': {'parts': AUTOENCODER}},
    'compile': {'compile': True},
    'compile, channels_last': {'compile': True, 'channels_last': True},
    'compile, checkpoint_activations': {'compile': True, 'checkpoint_activations': True},
}
QUICK = ('eager', 'channels_last', 'checkpoint_activations', 'compile, decoder')


def build(width: int, quick: bool) -> Any:
    """VQGAN's recipe at a small width."""
    torch.manual_seed(0)
    levels: dict[str, Any] = (
        {'multipliers': (1, 2), 'attention_levels': (1,)} if quick else {'multipliers': (1, 1, 2, 4), 'attention_levels': (3,)}
    )
    shape = {'width': width, 'norm_groups': 8, 'refine': not quick, 'residual_blocks': 1 if quick else 2, **levels}
    losses: dict[str, Any] = {'l1': {'type': 'L1Loss'}}
    if not quick:
        losses['lpips'] = {'type': 'LPIPSLoss'}
    config = {
        'type': 'AdversarialTokenization',
        'tokenizer': {
            'type': 'VQGAN',
            'encoder': dict(type='ConvEncoder', out_channels=64, **shape),
            'post_encode': {'type': 'ConvConnector'},
            'quantizer': {
                'type': 'VectorQuantizer',
                'codebook_size': 1024,
                'embedding_dim': 64,
                'init': 'normal',  # codes are far apart, so that rounding does not change tokens
                'update': {'type': 'EMAUpdate'},
            },
            'pre_decode': {'type': 'ConvConnector'},
            'decoder': dict(type='ConvDecoder', **shape),
        },
        'losses': losses,
        'discriminator': {'type': 'PatchGAN', 'width': width, 'depth': 2},
        'generator_loss': {'type': 'HingeGeneratorLoss'},
        'discriminator_loss': {'type': 'HingeDiscriminatorLoss'},
        'weight': {'type': 'AdaptiveWeight', 'gain': 0.8},
    }
    return VQTaskRegistry.build(config, 'model').train()


class Side:
    """A task under a strategy. The benchmark times ``step``."""

    def __init__(self, options: dict[str, Any], width: int, quick: bool, batch: Batch) -> None:
        self.task, self.batch = build(width, quick), batch
        config = {'type': 'BaseStrategy', 'device': 'cpu', **options}
        self.strategy = VQStrategyRegistry.build(config, 'strategy')
        self.strategy.start()
        self.strategy.place(self.task)
        plain = self.task.roots()
        self.roots = self.strategy.wrap(plain)
        rates = {'tokenizer': 5.4e-5, 'discriminator': 4.32e-4}
        self.optimizers = {
            name: torch.optim.Adam(self.strategy.trainable(root), rates[name], (0.5, 0.9), fused=True)
            for name, root in plain.items()
        }
        self.losses: dict[str, Tensor] = {}

    def step(self, update: bool = True) -> None:
        """One step. With ``update=False`` gradients are kept."""
        for name, losses in self.task.training_step(self.strategy.to_device(self.batch), self.roots, 1):
            self.losses[name] = losses.total.detach()
            self.strategy.backward(losses.total)
            if update:
                self.optimizers[name].step()
                self.optimizers[name].zero_grad(set_to_none=True)
        if update:
            self.task.update()

    def begin(self) -> tuple[float, list[Tensor]]:
        """Seconds and gradients of the first step."""
        start = time.perf_counter()
        self.step(update=False)
        seconds = time.perf_counter() - start
        gradients = [p.grad.clone() for root in self.roots.values() for p in root.parameters() if p.grad is not None]
        self.task.zero_grad(set_to_none=True)
        return seconds, gradients


def check(name: str, side: Side, gradients: list[Tensor], plain: Side, expected: list[Tensor]) -> None:
    """Check equality within the effect of rounding. Kernels sum in different orders, and at a ReLU or a max pool of the loss
    networks a last bit can reroute a gradient (float64 in the decoder changes LPIPS's gradients as much as compilation)."""
    worst = max(abs(float(side.losses[key] / value) - 1) for key, value in plain.losses.items())
    largest = max(float(value.abs().max()) for value in expected)
    pairs = zip(gradients, expected, strict=True)
    difference = max(float((one - other).abs().max()) for one, other in pairs) / largest
    detail = f'losses to {worst:.0e}, gradients to {difference:.0e} of the largest'
    must_be_equal(f'{name} and eager at step 1', worst < 1e-3 and difference < 1e-2, detail)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--width', type=int, help='channels of the first level (32; with --quick 16)')
    parser.add_argument('--only', nargs='+', choices=list(OPTIONS), help='these options beside eager')
    options = parser.parse_args()
    where, quick = machine(), options.quick
    size, count, width, repeats = (32, 4, options.width or 16, 7) if quick else (64, 8, options.width or 32, 9)
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    batch = Batch(image, [str(index) for index in range(count)], torch.arange(count))

    names = (
        ['eager', *options.only]
        if options.only
        else [name for name in OPTIONS if (name in QUICK if quick else name != 'compile, decoder')]
    )
    with tempfile.TemporaryDirectory() as cache:
        os.environ['TORCHINDUCTOR_CACHE_DIR'] = cache
        figures: dict[str, Any] = {'pixels': size, 'batch': count, 'width': width, 'options': {}}
        figures['options'] = compare(list(dict.fromkeys(names)), width, quick, batch, repeats)
    finish('speed_options', quick, where, figures)


def compare(names: list[str], width: int, quick: bool, batch: Batch, repeats: int) -> dict[str, Any]:
    sides, first = {}, {}
    expected: list[Tensor] = []
    for name in names:
        sides[name] = Side(OPTIONS[name], width, quick, batch)
        first[name], gradients = sides[name].begin()
        if name == 'eager':
            expected = gradients
        else:
            check(name, sides[name], gradients, sides['eager'], expected)

    steps: dict[str, Callable[[], object]] = {name: side.step for name, side in sides.items()}
    times = in_turns(steps, repeats, warmup=2)
    memory = {name: peak_memory(step) for name, step in steps.items()}
    rows, figures = [], {}
    for name, spent in times.items():
        ratio = paired_ratio(spent.cpu, times['eager'].cpu)
        rows.append([name, 1e3 * spent.median, 1e3 * spent.cpu_median, ratio, memory[name], first[name]])
        figures[name] = {
            **spent.figures(),
            'times_eager': rounded(ratio),
            'peak_mb': None if memory[name] is None else rounded(memory[name]),  # type: ignore[arg-type]
            'first_step_s': rounded(first[name]),
        }
    table('one adversarial step', ['', 'ms', 'ms of cpu', 'x eager', 'peak MB', 'first step, s'], rows)
    return figures


if __name__ == '__main__':
    main()
