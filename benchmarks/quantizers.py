"""All quantizers on the same digits with one recipe: codebook usage and quality of reconstructions.

    python benchmarks/quantizers.py                      train all of them: about a minute each on 2 idle cores
    python benchmarks/quantizers.py --only vq_ema fsq    some of them
    python benchmarks/quantizers.py --quick              three of them, for 60 steps

Each row is a config of configs/digits, trained by `vq.train` and measured by `vq.val` on the 180 validation digits with the
averaged weights, one seed. First, the composed configs are checked: they must be equal except for the quantizer and callbacks
that act on it. Steps per second are measured with steps in turns, after all training. MB is the peak memory of a step beyond
the memory between steps. The table and a picture (digits in the first row, reconstructions of each tokenizer below, codes
sorted by use on the right) are written to work_dirs/benchmarks/quantizers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import Cell, arguments, finish, in_turns, machine, must_be_equal, peak_memory, rounded, table

from vq.core import environment

environment.prepare()

import torch  # noqa: E402
from PIL import Image, ImageDraw  # noqa: E402
from torch import Tensor  # noqa: E402

import vq  # noqa: E402
from vq.assembly.compose import compose  # noqa: E402
from vq.cli import train, val  # noqa: E402
from vq.core.config import plain  # noqa: E402
from vq.core.random import derive_seed  # noqa: E402
from vq.data.datasets.digits import DigitsDataset  # noqa: E402
from vq.metrics.codebook import number_codes  # noqa: E402
from vq.registries import VQRunnerRegistry  # noqa: E402
from vq.runners.context import RunContext  # noqa: E402

ROWS = {
    'vq_plain': 'plain VQ',
    'vq_ema': 'EMA, restarts',
    'vq_reinit': 'plain, re-initialised',
    'vq_kmeans': 'unit length, k-means start',
    'vq_rotation': 'rotation trick, EMA',
    'cvq': 'CVQ',
    'entropy': 'entropy loss',
    'gumbel': 'Gumbel-softmax',
    'simvq': 'SimVQ',
    'ibq': 'IBQ',
    'fsq': 'FSQ',
    'lfq': 'LFQ',
    'bsq': 'BSQ',
    'grouped': 'grouped',
    'residual': 'residual',
    'multi_scale': 'multi-scale',
    'kl': 'KL (continuous)',
}
QUICK = ('vq_plain', 'vq_ema', 'fsq')
ITERS, QUICK_ITERS = 700, 60
ACTS_ON_CODES = ('AnnealCallback', 'KMeansInitCallback', 'ReinitCallback')
SHOWN = 12  # digits in the picture


def compose_row(name: str, iters: int) -> Any:
    return compose(f'digits/{name}.py', {'iters': iters}, {}, tiny=False)


def recipe(config: Any) -> str:
    """The trainer of a config without the compared parts: the bottleneck, and callbacks that act on codes."""
    trainer = json.loads(json.dumps(plain(config.trainer), default=str))
    tokenizer = trainer['model']['tokenizer']
    if tokenizer['type'] == 'KLAutoencoder':  # two numbers (mean, log variance) per latent channel
        for side in ('post_encode', 'pre_decode', 'decoder'):
            for key in ('in_channels', 'out_channels'):
                tokenizer[side].pop(key, None)
    for key in ('type', 'quantizer', 'kl_weight'):
        tokenizer.pop(key, None)
    callbacks = trainer['callbacks'].items()
    trainer['callbacks'] = {name: part for name, part in callbacks if part and part['type'] not in ACTS_ON_CODES}
    return json.dumps(trainer, sort_keys=True)


@dataclasses.dataclass
class Measured:
    """One row of the table."""

    results: dict[str, Any]
    reconstruction: Tensor  # (n, 3, H, W) uint8
    counts: list[int]  # uses of each code, in descending order; empty for continuous latents
    bits: float | None  # per image


def run_and_measure(name: str, iters: int, seed: int, work_dir: Path, digits: Tensor) -> Measured:
    """Train and validate by the public commands, then reconstruct the digits (N, 3, H, W) uint8."""
    config = f'configs/digits/{name}.py'
    common = ['--work-dir', str(work_dir), '--seed', str(seed), '--config-options', f'iters:{iters}']
    for command, more in ((train, ['--overwrite']), (val, [])):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = command.main([name, config, *common, *more])
        if code:
            raise SystemExit(f'{command.__name__} {name} ended with exit code {code}:\n{said.getvalue()}')
    results = json.loads((work_dir / name / 'val' / f'iter_{iters}' / 'results.json').read_text())['results']
    tokenizer = vq.load(str(work_dir / name))
    made = tokenizer.reconstruct(digits[:SHOWN])
    if tokenizer.continuous:
        return Measured(results, made, [], None)
    tokens = tokenizer.tokenize(digits)
    sizes = tokenizer.model.codebooks
    counts = torch.bincount(number_codes(tokens, sizes).flatten(), minlength=sum(sizes))
    per_position = tokenizer.model.quantizer.bits / len(sizes)
    return Measured(results, made, sorted(counts.tolist(), reverse=True), per_position * tokens[0].numel())


class Stepper:
    """A trainer of a row that runs one step at a time."""

    def __init__(self, name: str, folder: Path) -> None:
        torch.manual_seed(derive_seed('parameters', 0))
        config = compose_row(name, 10_000).trainer
        config.callbacks = [callback for callback in config.callbacks if callback and callback['type'] == 'EMACallback']
        self.trainer = VQRunnerRegistry.build(config, 'trainer')
        self.trainer.bind(RunContext('benchmark', folder))
        self.trainer.setup()
        self.trainer._call('before_run')
        self.trainer.batches = iter(self.trainer.open_loader())
        self.step: Callable[[], object] = self.trainer.train_step


def time_steps(names: list[str], repeats: int, calls: int) -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        steppers = {name: Stepper(name, Path(folder) / name) for name in names}
        times = in_turns({name: stepper.step for name, stepper in steppers.items()}, repeats, warmup=2, calls=calls)
        return {
            name: {'steps_per_second': rounded(1 / times[name].median), 'step_mb': peak_memory(steppers[name].step)}
            for name in names
        }


def draw(file: Path, digits: Tensor, rows: dict[str, Measured], zoom: int = 2) -> None:
    """One line per tokenizer: name and figures, reconstructions, and uses of its codes in descending order."""
    size, words, bars, gap = digits.shape[-1] * zoom, 250, 256, 6
    width = words + SHOWN * (size + gap) + bars + gap
    sheet = Image.new('RGB', (width, (len(rows) + 1) * (size + gap) + gap), 'white')
    pen = ImageDraw.Draw(sheet)

    def line(place: int, text: str, pictures: Tensor, counts: list[int]) -> None:
        top = gap + place * (size + gap)
        pen.multiline_text((gap, top + 12), text, fill='black', font_size=15)
        for index, picture in enumerate(pictures):
            image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).resize(
                (size, size), Image.Resampling.NEAREST
            )
            sheet.paste(image, (words + index * (size + gap), top))
        left = words + SHOWN * (size + gap)
        most = max(counts, default=1)
        for column in range(bars if counts else 0):
            height = round(size * (counts[column * len(counts) // bars] / most) ** 0.5)  # root: rare codes stay visible
            pen.line((left + column, top + size - height, left + column, top + size), fill='#3060a0')
        pen.line((left, top + size, left + bars, top + size), fill='#808080')

    line(0, 'input\n(bars: codes by use, root scale)', digits[:SHOWN], [])
    for place, (name, row) in enumerate(rows.items(), 1):
        used = '' if not row.counts else f', {100 * row.results["codebook_usage"]:.1f} % used'
        line(place, f'{ROWS.get(name, name)}\n{row.results["psnr"]:.1f} dB{used}', row.reconstruction, row.counts)
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--only', nargs='+', metavar='NAME', help='configs of configs/digits, without .py')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/benchmarks/quantizers'))
    parser.add_argument('--seed', type=int, default=3407)
    options = parser.parse_args()
    names: list[str] = options.only or list(QUICK if options.quick else ROWS)
    iters = QUICK_ITERS if options.quick else ITERS
    where = machine()

    recipes = {name: recipe(compose_row(name, iters)) for name in names}
    odd = [name for name in names if recipes[name] != recipes[names[0]]]
    must_be_equal(
        f'the recipe of {len(names)} configs, but for the quantizer', not odd, f'they differ in {odd}' if odd else ''
    )
    dataset = DigitsDataset(split='validation', image_size=32)
    digits = torch.stack([torch.from_numpy(dataset.read(index)).permute(2, 0, 1) for index in range(len(dataset))])

    measured: dict[str, Measured] = {}
    for name in names:
        measured[name] = row = run_and_measure(name, iters, options.seed, options.work_dir, digits)
        print(f'{name}: {row.results["psnr"]:.2f} dB, {100 * row.results.get("codebook_usage", 1):.1f} %', flush=True)
    speed = time_steps(names, repeats=7, calls=1 if options.quick else 4)

    rows: list[list[Cell]] = []
    for name, row in measured.items():
        usage, perplexity = row.results.get('codebook_usage'), row.results.get('perplexity')
        rows.append(
            [
                ROWS.get(name, name),
                name,
                len(row.counts) or None,
                None if usage is None else round(100 * usage, 1),
                perplexity,
                round(row.results['psnr'], 2),
                row.bits,
                *speed[name].values(),
            ]
        )
    columns = ['quantizer', 'config', 'codes', 'usage %', 'perplexity', 'PSNR dB', 'bits/image', 'steps/s', 'MB']
    table(f'{iters} steps on digits, seed {options.seed}', columns, rows)
    picture = options.work_dir / 'quantizers.png'
    draw(picture, digits, measured)
    print(f'\npicture: {picture}')
    finish(
        'quantizers',
        options.quick,
        where,
        {name: {**row.results, 'bits': row.bits, **speed[name]} for name, row in measured.items()},
    )


if __name__ == '__main__':
    main()
