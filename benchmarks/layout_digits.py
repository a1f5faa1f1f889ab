"""Digits drawn where boxes ask for them: the share of boxes that hold the digit asked for, of a model trained from nothing.

    python benchmarks/layout_digits.py --output benchmarks/results/layout_digits.json
    python benchmarks/layout_digits.py --quick      60 steps; its figures mean nothing

`vq.train` trains configs/layout/digits.py, configs/layout/digits_segmenter.py and the classifier configs/ic/digits.py, with
one thread (OMP_NUM_THREADS=1) unless the environment says otherwise. The model draws the layouts of the first canvases of the
test split. No training has seen their digits, and no setting was chosen by them.

- agreement: the share of boxes whose crop the classifier assigns to the digit asked for. A crop keeps its shape.
- real: the same of the true canvases.
- chance: the same of the drawn ones, with the digits asked for exchanged among the boxes.
- dropped: the same of canvases that the model draws without the layout.
- detected: the share of boxes that the segmenter finds again: a region of this digit whose box has an IoU of 0.5 or more.
- scene_fid, cas: SceneFID and the classification accuracy score, on the features of the classifier.

First, equality: an image must be the same alone and in a batch of other layouts. Runs are kept in the work folder, and a
second call trains what is missing. Seconds are those of the log of a training.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _common import Cell, arguments, finish, machine, must_be_equal, rounded, table

from vq.core import environment

os.environ.setdefault('OMP_NUM_THREADS', '1')
environment.prepare()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

import vq  # noqa: E402
from vq.cli import train  # noqa: E402
from vq.core.conditions import Condition  # noqa: E402
from vq.core.random import python_stream  # noqa: E402
from vq.core.records import Batch  # noqa: E402
from vq.data.collate import collate  # noqa: E402
from vq.data.datasets.digits_canvas import DigitsCanvasDataset  # noqa: E402
from vq.interfaces import FeatureNetwork  # noqa: E402
from vq.io.pictures import grid, save_png  # noqa: E402
from vq.metrics.crops import crops_of  # noqa: E402
from vq.metrics.layout import found_again  # noqa: E402
from vq.metrics.scenes import classification_accuracy_score, crop_features, scene_fid  # noqa: E402
from vq.metrics.segmentation import confusion, figures_of  # noqa: E402
from vq.runners import journal  # noqa: E402
from vq.tasks.loaded import LoadedGenerator  # noqa: E402
from vq.teachers.classifier import classifier_features  # noqa: E402

CONFIGS = {
    'classifier': 'configs/ic/digits.py',
    'segmenter': 'configs/layout/digits_segmenter.py',
    'boxes': 'configs/layout/digits.py',
}
GOALS = {'agreement': 0.8, 'dropped': 0.3, 'chance': 0.3, 'seconds': 900, 'pixel accuracy': 0.95, 'segmenter seconds': 60}
CANVASES, QUICK_CANVASES, SHOWN = 200, 8, 12
SIDE = 32  # pixels a side of a crop, those of the classifier


def trained(work: Path, name: str, seed: int, quick: bool) -> dict[str, float]:
    """Train a run, or go on with it. Its seconds."""
    words = [f'{name}_{seed}', CONFIGS[name], '--work-dir', str(work), '--seed', str(seed), '--auto-resume']
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = train.main([*words, *(['--config-options', 'iters:60'] if quick else [])])
    if code:
        raise SystemExit(f'vq.train {" ".join(words)} ended with exit code {code}:\n{said.getvalue()}')
    return seconds_of(work / f'{name}_{seed}' / 'log.jsonl')


def seconds_of(file: Path) -> dict[str, float]:
    """Wall and CPU seconds of the steps of a training, from its log."""
    wall = cpu = before = 0.0
    for line in journal.read(file):
        if line['kind'] == 'train':
            spent = (line['step'] - before) * line['timing']['seconds_per_step']
            wall, cpu, before = wall + spent, cpu + spent * line['timing']['processors'], line['step']
    return {'wall': rounded(wall), 'cpu': rounded(cpu), 'steps': before}


def canvases(count: int) -> Batch:
    dataset = DigitsCanvasDataset('test')
    return collate([dataset.load(index, python_stream('benchmark', index)) for index in range(count)])


def agreement(network: FeatureNetwork, images: Tensor, batch: Batch, wanted: Tensor) -> float:
    assert batch.boxes is not None and batch.boxes_mask is not None
    logits = network(crops_of(images, batch.boxes, batch.boxes_mask, SIDE, keep_shape=True)).logits
    assert logits is not None
    return rounded(float((logits.argmax(1) == wanted).double().mean()))


def check_alone(loaded: LoadedGenerator, layout: Condition, seed: int) -> None:
    """An image is the same alone and beside one with another number of boxes, up to rounding."""
    both = loaded.sample(layout=layout.taken([0, 1]), count=2, seed=seed)
    alone = loaded.sample(layout=layout.taken([0]), count=1, seed=seed)
    off = int((both[0].int() - alone[0].int()).abs().max())
    must_be_equal('an image alone and in a batch', off <= 1, f'largest difference {off} of 255')


def measure(work: Path, seed: int, batch: Batch) -> dict[str, Any]:
    network, loaded = classifier_features(work / f'classifier_{seed}'), vq.load(work / f'boxes_{seed}')
    segmenter = vq.load(work / f'segmenter_{seed}')
    assert batch.box_categories is not None and batch.boxes_mask is not None and batch.image is not None
    layout = Condition(boxes=batch.boxes, box_categories=batch.box_categories, boxes_mask=batch.boxes_mask)
    wanted = batch.box_categories[batch.boxes_mask]
    check_alone(loaded, layout, seed)
    drawn = loaded.sample(layout=layout, count=len(batch), seed=seed)
    free = loaded.sample(count=len(batch), seed=seed, guidance=1.0)
    exchanged = wanted[torch.randperm(len(wanted), generator=torch.Generator().manual_seed(seed))]
    shown = torch.cat([batch.image[:SHOWN], drawn[:SHOWN], free[:SHOWN]])
    save_png(work / f'boxes_{seed}' / 'drawn.png', grid(shown, columns=min(SHOWN, len(batch))))
    assert batch.mask is not None
    features = [crop_features(network, images, layout, SIDE, shape=True) for images in (batch.image, drawn)]
    pixels = figures_of(confusion(batch.mask, segmenter.segment(batch.image), 10))
    return {
        'boxes': len(wanted),
        'agreement': agreement(network, drawn, batch, wanted),
        'real': agreement(network, batch.image, batch, wanted),
        'chance': agreement(network, drawn, batch, exchanged),
        'dropped': agreement(network, free, batch, wanted),
        'detected': rounded(found_again(segmenter.regions(drawn), layout)),
        'detected real': rounded(found_again(segmenter.regions(batch.image), layout)),
        'scene_fid': rounded(scene_fid(*features)),
        'cas': rounded(classification_accuracy_score(features[1], wanted, features[0], wanted, 10)),
        'segmenter': {name: rounded(value) for name, value in pixels.items()},
    }


def missed(row: Mapping[str, Any]) -> list[str]:
    """The goals that a row misses."""
    reached = {name: row[name] for name in ('agreement', 'dropped', 'chance')}
    reached |= {'seconds': row['seconds']['cpu'], 'segmenter seconds': row['segmenter seconds']['cpu']}
    reached |= {'pixel accuracy': row['segmenter']['pixel_accuracy']}
    least = ('agreement', 'pixel accuracy')
    wrong = {name: value < GOALS[name] if name in least else value > GOALS[name] for name, value in reached.items()}
    return [f'{name} is {reached[name]:.3g}, the goal {GOALS[name]:g}' for name, bad in wrong.items() if bad]


def show(found: Mapping[int, Mapping[str, Any]]) -> None:
    names = ('agreement', 'real', 'chance', 'dropped', 'detected', 'detected real')
    rows: list[list[Cell]] = [
        [f'seed {seed}', row['seconds']['wall'], row['seconds']['cpu'], *(f'{100 * row[name]:.1f} %' for name in names)]
        for seed, row in found.items()
    ]
    table('boxes that hold the digit asked for', ['', 's', 's of CPU', *names], rows)
    for seed, row in found.items():
        figures = ', '.join(f'{name} {value:.3f}' for name, value in row['segmenter'].items())
        print(f'segmenter, seed {seed}: {figures}; {row["segmenter seconds"]["cpu"]:.0f} s of CPU')


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--seeds', nargs='+', type=int, default=[3407])
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/benchmarks/layout_digits, with --quick _quick')
    parser.add_argument('--output', type=Path, help='also write the line of JSON to this file')
    options = parser.parse_args()
    work = options.work_dir or Path('work_dirs/benchmarks') / f'layout_digits{"_quick" if options.quick else ""}'
    where, batch, found = machine(), canvases(QUICK_CANVASES if options.quick else CANVASES), dict[int, Any]()
    for seed in options.seeds:
        seconds = {name: trained(work, name, seed, options.quick) for name in CONFIGS}
        own = {'seconds': seconds['boxes'], 'segmenter seconds': seconds['segmenter']}
        found[seed] = measure(work, seed, batch) | own
    show(found)
    wrong = [f'seed {seed}: {text}' for seed, row in found.items() for text in missed(row)]
    print('\n'.join(wrong) or 'all goals are met by all seeds')
    figures = {'canvases': len(batch), 'goals': GOALS, 'seeds': json.loads(json.dumps(found)), 'missed': wrong}
    finish('layout_digits', options.quick, where, figures, options.output)
    if wrong and not options.quick:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
