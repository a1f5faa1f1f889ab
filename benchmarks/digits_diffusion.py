"""A small class-conditional denoiser of handwritten digits in four ways, three seeds each: its training time, and its digits.

    python benchmarks/digits_diffusion.py --output benchmarks/results/digits_diffusion.json
    python benchmarks/digits_diffusion.py --only pixels flow --seeds 1
    python benchmarks/digits_diffusion.py --energy     two other ways: energy diffusion, and MAR
    python benchmarks/digits_diffusion.py --quick      60 steps of 8 images each; its figures mean nothing

The ways are configs of configs/diffusion: latents encoded in every step, latents of a cache, pixels, flow matching. Three of
them learn the latents of the tokenizer of `make demo` (configs/digits/demo.py), one and the same for all seeds. `vq.train`
trains each, with one thread (OMP_NUM_THREADS=1) unless the environment says otherwise. Sampler and guidance are those of the
config. Each run draws 30 digits of each class twice: guided, and with guidance 1.

- agreement: the share of digits that a classifier (configs/ic/digits.py) assigns to the class that was asked for.
- within: the mean Euclidean distance of two images of a class, averaged over classes, divided by the same figure of the 360
  held-out digits. 1: as diverse as real digits; 0: one picture for each class.
- fd: the Frechet distance to the training digits, on the 64 features of the classifier. The line of held-out digits has the
  distance that real digits have.

The two other ways are configs/energy/digits.py on the latents of the same tokenizer, and configs/mar/digits.py on those of a
continuous one (configs/digits/kl.py). What an energy is good for is measured as well: see ``_digits_diffusion_energy.py``.

First, equality: the latents of the cache must be those that the tokenizer encodes. Runs and their figures are kept in the
work folder, so that a second call trains what is missing. A training that was interrupted starts again, as its time is a
figure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _common import Cell, arguments, finish, machine, must_be_equal, rounded, table

from vq.core import environment

os.environ.setdefault('OMP_NUM_THREADS', '1')
environment.prepare()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from _digits_diffusion_energy import energy_figures, in_words  # noqa: E402
from PIL import Image, ImageDraw  # noqa: E402
from torch import Tensor  # noqa: E402

import vq  # noqa: E402
from vq.cli import data, latents, train  # noqa: E402
from vq.core.records import to_float  # noqa: E402
from vq.data.datasets.digits import DigitsDataset  # noqa: E402
from vq.io import atomic  # noqa: E402
from vq.io.shards import ShardSet  # noqa: E402
from vq.metrics.likeness import within_class_distance  # noqa: E402
from vq.report.figures import Seen  # noqa: E402
from vq.report.images import read_images  # noqa: E402
from vq.teachers.classifier import classifier_features  # noqa: E402

WAYS = {
    'latents': ('configs/diffusion/digits.py', 'latents, encoded in every step'),
    'cached': ('configs/diffusion/digits_cached.py', 'latents of a cache'),
    'pixels': ('configs/diffusion/digits_pixels.py', 'pixels'),
    'flow': ('configs/diffusion/digits_flow.py', 'latents, flow matching'),
}
OF_ENERGY = {
    'energy': ('configs/energy/digits.py', 'the gradient of an energy'),
    'mar': ('configs/mar/digits.py', 'MAR, latents of a KL autoencoder'),
}
ALL = WAYS | OF_ENERGY
SEEDS, OWN_SEED = [3407, 1, 2], 3407  # OWN_SEED: of the tokenizer and the classifier, whatever the seed of the denoiser
EACH, QUICK_EACH, CLASSES = 30, 2, 10
GOALS = {'seconds': 240, 'guided agreement': 0.97, 'unguided agreement': 0.88, 'guided within': 0.65}
GOALS_OF: dict[str, dict[str, float]] = dict.fromkeys(WAYS, GOALS) | {
    'energy': {'seconds': 360, 'guided agreement': 0.95, 'unguided agreement': 0.85, 'guided within': 0.65},
    'mar': {'guided agreement': 0.95, 'guided within': 0.65},
}
QUICK_ITERS = 60  # schedules of the configs warm up for 50


def call(command: Any, *words: str) -> None:
    """A command in this process. What it says is shown if it fails."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = command.main([*words])
    if code:
        raise SystemExit(f'{command.__name__} {" ".join(words)} ended with exit code {code}:\n{said.getvalue()}')


@dataclasses.dataclass
class Base:
    """What all ways share: the tokenizer with its statistics, the cache of its latents, the classifier."""

    work: Path
    quick: bool

    @property
    def tokenizer(self) -> Path:
        return self.work / 'tokenizer_latents/tokenizer.safetensors'

    @property
    def cache(self) -> Path:
        return self.work / 'cache'

    @property
    def continuous(self) -> Path:
        """Of MAR."""
        return self.work / 'kl_latents/tokenizer.safetensors'

    @property
    def each(self) -> int:
        return QUICK_EACH if self.quick else EACH

    def short(self, *more: str) -> list[str]:
        return ['--config-options', f'iters:{QUICK_ITERS}', 'batch_size:8', *more] if self.quick else []

    def train(self, name: str, config: str, seed: int, *words: str) -> None:
        call(train, name, config, '--work-dir', str(self.work), '--seed', str(seed), *words)

    def prepare(self, ways: Sequence[str]) -> None:
        """Train what is missing; a training that was stopped goes on."""
        needed = {'tokenizer': 'configs/digits/demo.py', 'classifier': 'configs/ic/digits.py'}
        needed |= {'kl': 'configs/digits/kl.py'} if 'mar' in ways else {}
        for name, config in needed.items():
            self.train(name, config, OWN_SEED, '--auto-resume', *self.short())
        run, place = str(self.work / 'tokenizer'), ['--work-dir', str(self.work)]
        for name, file in (('tokenizer', self.tokenizer), ('kl', self.continuous)):
            if name in needed and not file.is_file():
                call(latents, name, '--load-model-from', str(self.work / name), *place)
        if not (self.cache / 'train/latents/manifest.json').is_file():
            where = ['--output-folder', str(self.cache)]
            call(data, 'latents', run, '--load-model-from', str(self.tokenizer), '--no-mirror', *where)

    def check_cache(self) -> None:
        """The cache has the code vectors of the tokenizer, the input of its decoder."""
        shards, digits = ShardSet(self.cache / 'train/latents'), read_images(DigitsDataset(split='train', image_size=32))
        place = {name: row for row, name in enumerate(digits.ids)}
        tokenizer = vq.load(self.tokenizer).model.eval()
        with torch.no_grad():
            parts = torch.split(digits.tensor, 100)
            encoded = torch.cat([tokenizer.code(tokenizer.encode(to_float(part)))[0] for part in parts])
        kept = torch.from_numpy(np.array(shards.column('mean')[:][:, 0], np.float32))
        off = float((kept - encoded[[place[name] for name in shards.ids()]]).abs().max() / encoded.std())
        must_be_equal('the cache has the latents of the tokenizer', off < 1e-4, f'largest error {off:.1e} deviations')


def options_of(way: str, base: Base) -> list[str]:
    found = [] if way == 'pixels' else [f'tokenizer_run::{base.continuous if way == "mar" else base.tokenizer}']
    found += [f'latents::{base.cache}'] if way == 'cached' else []
    return ['--config-options', *found, *base.short()[1:]] if found or base.quick else []


class Judge:
    """The classifier, and real digits to compare with."""

    def __init__(self, classifier: Path) -> None:
        self.network = classifier_features(classifier)
        splits = {split: read_images(DigitsDataset(split=split, image_size=32)) for split in ('train', 'validation', 'test')}
        self.learned = Seen(self.network, splits['train'].tensor)
        held_out = [splits['validation'], splits['test']]
        images = torch.cat([found.tensor for found in held_out])
        asked = torch.cat([torch.from_numpy(found.category) for found in held_out])
        self.distance = within_class_distance(images, asked)
        self.real = self.measure(images, asked)

    def measure(self, images: Tensor, asked: Tensor) -> dict[str, float]:
        """Figures of images (N, 3, H, W) uint8 and the classes (N,) that were asked for."""
        seen = Seen(self.network, images)
        within = within_class_distance(images, asked) / self.distance
        return {'agreement': seen.agreement(asked), 'within': within, 'fd': seen.distance(self.learned)}


def run_way(way: str, seed: int, base: Base, judge: Judge) -> dict[str, Any]:
    """Train, draw and measure; or the figures of an earlier call."""
    name = f'{way}_{seed}'
    file = base.work / name / 'figures.json'
    if file.is_file():
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    wall, cpu = time.perf_counter(), time.process_time()
    base.train(name, ALL[way][0], seed, '--overwrite', *options_of(way, base))
    seconds = {'wall': rounded(time.perf_counter() - wall), 'cpu': rounded(time.process_time() - cpu)}
    loaded, classes = vq.load(base.work / name), [*range(CLASSES)]
    asked = torch.tensor(classes * base.each)
    figures: dict[str, Any] = {'seconds': seconds}
    for how, settings in (('guided', {}), ('unguided', {'guidance': 1.0})):
        images = loaded.sample(classes, len(asked), seed=seed, **settings)
        figures[how] = {key: rounded(value) for key, value in judge.measure(images, asked).items()}
        sheet(images[: 2 * CLASSES]).save(base.work / name / f'{how}.png')
    if way == 'energy':
        figures['energy'] = energy_figures(loaded, judge.network, base.each, seed)
    atomic.write_text(file, json.dumps(figures))
    return figures


def sheet(images: Tensor) -> Image.Image:
    """Two rows of ten digits."""
    rows = images.permute(0, 2, 3, 1).numpy().reshape(2, CLASSES, *images.shape[2:], 3)
    return Image.fromarray(np.ascontiguousarray(np.concatenate(np.concatenate(rows, 1), 1)))


def draw(file: Path, work: Path, found: Mapping[str, Mapping[int, Any]]) -> None:
    """The first two digits of each class of each way, one seed."""
    words, gap = 200, 8
    sheets = {ALL[way][1]: Image.open(work / f'{way}_{next(iter(seeds))}' / 'guided.png') for way, seeds in found.items()}
    size = next(iter(sheets.values())).size
    whole = Image.new('RGB', (words + size[0] + gap, len(sheets) * (size[1] + gap) + gap), 'white')
    pen = ImageDraw.Draw(whole)
    for place, (text, image) in enumerate(sheets.items()):
        top = gap + place * (size[1] + gap)
        pen.text((gap, top + size[1] / 2 - 8), text, fill='black', font_size=13)
        whole.paste(image, (words, top))
    file.parent.mkdir(parents=True, exist_ok=True)
    whole.save(file)


def worst_of(way: str, found: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
    """Of all seeds, the figure that is farthest from its goal."""
    rows, goals = [*found.values()], GOALS_OF[way]
    seconds = {'seconds': max(row['seconds']['cpu'] for row in rows)} if 'seconds' in goals else {}
    named = [name.split() for name in goals if name != 'seconds']
    return seconds | {f'{how} {key}': min(row[how][key] for row in rows) for how, key in named}


def show(each: int, found: Mapping[str, Mapping[int, Any]], real: Mapping[str, float]) -> None:
    def percent(value: float) -> str:
        return f'{100 * value:.1f} %'

    def cells(row: Mapping[str, float]) -> list[Cell]:
        return [percent(row['agreement']), f'{row["within"]:.2f}', f'{row["fd"]:.2f}']

    rows: list[list[Cell]] = [
        [f'{way}, seed {seed}', row['seconds']['wall'], row['seconds']['cpu'], *cells(row['guided']), *cells(row['unguided'])]
        for way, seeds in found.items()
        for seed, row in seeds.items()
    ]
    rows.append(['held-out digits', None, None, *cells(real), None, None, None])
    columns = ['', 's', 's of CPU', 'guided', 'within', 'fd', 'unguided', 'within', 'fd']
    table(f'{each} digits of each class: agreement, distance within a class, Frechet distance', columns, rows)
    for way, seeds in found.items():
        missed = [
            f'{name} {value:.3g}'
            for name, value in worst_of(way, seeds).items()
            if (value > GOALS_OF[way][name] if name == 'seconds' else value < GOALS_OF[way][name])
        ]
        print(f'{way}: {"misses " + ", ".join(missed) if missed else "all goals are met by all seeds"}')


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--energy', action='store_true', help=f'other ways: {", ".join(OF_ENERGY)}')
    parser.add_argument('--only', nargs='+', choices=ALL, metavar='WAY', help=', '.join(ALL))
    parser.add_argument('--seeds', nargs='+', type=int, help=f'of the denoisers (default: {SEEDS}; with --quick the first)')
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/benchmarks/digits_diffusion, with --quick _quick')
    parser.add_argument('--output', type=Path, help='also write the line of JSON to this file')
    parser.add_argument('--picture', type=Path, help='write the first digits of each way to this file')
    options = parser.parse_args()
    seeds: list[int] = options.seeds or (SEEDS[:1] if options.quick else SEEDS)
    usual = Path('work_dirs/benchmarks') / f'digits_diffusion{"_quick" if options.quick else ""}'
    ways = options.only or [*(OF_ENERGY if options.energy else WAYS)]
    where, base = machine(), Base(options.work_dir or usual, options.quick)
    base.prepare(ways)
    base.check_cache()
    judge = Judge(base.work / 'classifier')
    found: dict[str, dict[int, Any]] = {way: {} for way in ways}
    for seed in seeds:
        for way, rows in found.items():
            rows[seed] = row = run_way(way, seed, base, judge)
            said = f'{row["seconds"]["cpu"]:.0f} s of CPU time, {100 * row["guided"]["agreement"]:.1f} % guided'
            print(f'{way}, seed {seed}: {said}', flush=True)
    show(base.each, found, judge.real)
    for seed, row in found.get('energy', {}).items():
        print(f'energy, seed {seed}: {in_words(row["energy"])}')
    if options.picture:
        draw(options.picture, base.work, found)
        print(f'\npicture: {options.picture}')
    worst = {way: worst_of(way, rows) for way, rows in found.items()}
    goals = {way: GOALS_OF[way] for way in ways} if options.energy else GOALS
    figures = {'each': base.each, 'goals': goals, 'ways': found, 'worst': worst, 'held_out_digits': judge.real}
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
    finish('digits_energy' if options.energy else 'digits_diffusion', options.quick, where, figures, options.output)


if __name__ == '__main__':
    main()
