"""A newcomer with a folder of pictures: five commands, each as the command before it printed it, in an empty directory.

    python -m tests.newcomer                    300 images of 64 pixels: the whole form
    python -m tests.newcomer --folder DIR       keeps everything in DIR, and continues there after a stop

A wheel is built from this tree and installed beside it, so the checkout is not used. At the end a table: time of each command,
PSNR of the tokenizer and of k-means on raw patches with as many tokens and codes, share of the codes in use, and Frechet
distances to the held-out images, of samples and of images decoded from random codes. The features are those of a small
classifier, which is trained on the folder apart from the five commands.

Quiet means that nothing else runs: the figures in minutes are of the clock, those in CPU minutes hardly depend on other work.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests import messy
from tests.sources import ROOT

MARK = 'next: '
FIRST = 'vq data check photos'
STEPS = ('data', 'train tok', 'report', 'train gen', 'sample')  # the five commands
CODES_SEED = 7


@dataclasses.dataclass
class Done:
    """A command that has ended well."""

    line: str
    said: str
    seconds: float
    cpu: float

    @property
    def next(self) -> list[str]:
        """The commands that its closing lines name."""
        lines = self.said.rstrip('\n').split('\n')
        first = max((place for place, line in enumerate(lines) if line.startswith(MARK)), default=None)
        assert first is not None, f'{self.line} has no closing line:\n{self.said[-2000:]}'
        closing = lines[first:]
        assert all(line.startswith((MARK, ' ' * len(MARK))) for line in closing), f'{self.line} ends with {closing}'
        return [line[len(MARK) :] for line in closing]


def install(folder: Path) -> Path:
    """A wheel of this tree, installed into ``folder``/site with its console scripts."""
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '--quiet']
    subprocess.run(
        [*pip, 'wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', str(folder), str(ROOT)], check=True, text=True
    )
    (wheel,) = folder.glob('vq-*.whl')
    subprocess.run([*pip, 'install', '--no-deps', '--no-index', '--target', str(folder / 'site'), str(wheel)], check=True)
    return folder / 'site'


def run(line: str, here: Path, site: Path) -> Done:
    """Run a command line as a shell would, with the installed wheel."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(('PYTEST', 'DRY_RUN', 'RANK', 'WORLD'))}
    path = os.pathsep.join([str(site / 'bin'), kept.get('PATH', '')])
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        line, shell=True, cwd=here, env={**kept, 'PYTHONPATH': str(site), 'PATH': path}, capture_output=True, text=True
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, f'{line}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}'
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return Done(line, done.stdout, time.monotonic() - began, cpu)


def play(here: Path, site: Path, more: Mapping[str, str] = {}) -> list[Done]:
    """The five commands. Each is the first closing line of the one before; ``more``: words after it, by the name of a step."""
    found: list[Done] = []
    line = FIRST
    for step in STEPS:
        said = line.split(' ')
        assert said[0] == 'vq' and line.startswith(f'vq {step}'), f'{found[-1].line if found else ""} led to: {line}'
        found.append(run(f'{line} {more[step]}' if step in more else line, here, site))
        print(f'{found[-1].seconds / 60:6.2f} min  {found[-1].line}', flush=True)
        line = found[-1].next[0]
    return found


# figures


def held_out(here: Path, config: Mapping[str, object], split: str) -> NDArray[np.uint8]:
    """The images (N, H, W, 3) of a split as the validator sees them, without files that cannot be read."""
    import random

    from vq.data.decode import BadImage
    from vq.registries import VQDatasetRegistry

    part = dict(config['validator']['dataset'])  # type: ignore[index]
    dataset = VQDatasetRegistry.build({**part, 'split': split, 'root': str(here / part['root'])}, 'dataset')
    images = []
    for index in range(len(dataset)):
        try:
            images.append(dataset.load(index, random.Random(0))['image'])
        except BadImage:
            continue
    return np.stack(images)


def psnr(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> float:
    """Mean over images, in dB."""
    errors = np.square(images.astype(np.float64) - others).mean(axis=(1, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / errors.clip(1e-9))))


def figures(here: Path, classifier: str | None) -> dict[str, float]:
    """What the two runs in ``here`` are worth, computed from their weights apart from the commands."""
    import torch
    from PIL import Image

    import vq
    from vq.io import runs
    from vq.report import baseline

    os.chdir(here)
    tokenizer, run = vq.load('tok'), runs.find('tok')
    train, images = (held_out(here, run.config, split) for split in ('train', 'validation'))
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    tokens = tokenizer.tokenize(tensor)
    ours = tokenizer.detokenize(tokens).permute(0, 2, 3, 1).numpy()
    patch = images.shape[1] // tokens.shape[1]
    kmeans = baseline.fit(train, tokenizer.codebook_size, patch, seed=0)
    found = {
        'held-out images': float(len(images)),
        'PSNR, dB': psnr(images, ours),
        'PSNR of k-means, dB': psnr(images, kmeans.detokenize(kmeans.tokenize(images))),
        'codes in use, %': 100 * len(np.unique(tokenizer.tokenize(torch.from_numpy(train).permute(0, 3, 1, 2))))
        / tokenizer.codebook_size,
    }  # fmt: skip
    samples = np.stack([np.asarray(Image.open(path)) for path in sorted((here / 'work_dirs/gen_sample/samples').iterdir())])
    stream = torch.Generator().manual_seed(CODES_SEED)
    shape = (len(samples), *tokens.shape[1:])
    noise = tokenizer.detokenize(torch.randint(tokenizer.codebook_size, shape, generator=stream)).permute(0, 2, 3, 1).numpy()
    if classifier is not None:
        found['FD of samples'] = distance(classifier, images, samples)
        found['FD of random codes'] = distance(classifier, images, noise)
        found['FD of reconstructions'] = distance(classifier, images, ours)
    sheet = {'images': images, 'reconstructions': ours, 'samples': samples, 'random codes': noise}
    for name, pictures in sheet.items():
        rows = [np.concatenate(list(pictures[row * 8 : row * 8 + 8]), axis=1) for row in range(min(4, len(pictures) // 8))]
        Image.fromarray(np.concatenate(rows)).save(here / f'{name.replace(" ", "_")}.png')
    return found


def distance(classifier: str, images: NDArray[np.uint8], others: NDArray[np.uint8]) -> float:
    """The Frechet distance of two sets of images in the features of a classifier."""
    import torch

    from vq.metrics.features.frechet import frechet_distance
    from vq.metrics.features.statistics import FeatureStatistics
    from vq.teachers.classifier import classifier_features

    network = classifier_features(classifier)
    moments = []
    for pictures in (images, others):
        statistics = FeatureStatistics(network.dimension)
        for part in torch.from_numpy(pictures).permute(0, 3, 1, 2).split(64):
            statistics.update(network(part).pooled)
        moments.append(statistics.compute())
    return frechet_distance(*moments).value


def train_classifier(here: Path, site: Path, iters: int) -> Done:
    """A small classifier of the folder's classes, on the images of the tokenizer's run."""
    config = json.loads(next((here / 'work_dirs/tok/checkpoints').glob('iter_*/config.json')).read_text())
    spec = json.loads(next((here / 'work_dirs/tok/checkpoints').glob('iter_*/spec.json')).read_text())
    data = config['validator']['dataset']
    pairs = dict(
        dataset='folder',
        data_root=data['root'],
        image_size=spec['image'][0],
        held_out=data['held_out'],
        augmentation='strong',
        bad_images='skip',
        num_classes=len(spec['categories']),
        iters=iters,
        batch_size=32,
    )
    return run(
        shlex.join(['vq', 'train', 'ic', 'ic/digits.py', *(f'{name}={value}' for name, value in pairs.items())]), here, site
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser('tests.newcomer', description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--folder', type=Path, default=None, help='an empty folder to work in (default: a temporary one)')
    parser.add_argument('--images', type=int, default=300)
    parser.add_argument('--size', type=int, default=64, help='pixels a side, about')
    parser.add_argument('--flat', action='store_true', help='without class folders')
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        here = folder.resolve() / 'here'
        here.mkdir(parents=True)
        site = install(folder.resolve())
        messy.make(here / 'photos', options.images, options.size, flat=options.flat)
        found = play(here, site)
        classifier = None if options.flat else train_classifier(here, site, 200)
        rows = [(f'{done.seconds / 60:.2f} min, {done.cpu / 60:.2f} CPU min', done.line) for done in found]
        total = sum(done.seconds for done in found) / 60, sum(done.cpu for done in found) / 60
        rows += [(f'{total[0]:.2f} min, {total[1]:.2f} CPU min', 'all five')]
        rows += [(f'{value:.2f}', name) for name, value in figures(here, 'ic' if classifier else None).items()]
        print('\n'.join(f'{value:>26}  {name}' for value, name in rows))
    return 0


if __name__ == '__main__':
    sys.exit(main())
