"""``python -m vq.demo layout``, or ``make demo-layout``: digits drawn where boxes ask for them, from nothing, on the CPU.

Trains a segmenter of digits and a UNet that draws layouts, and draws those of held-out canvases. ``vq web`` works with both
runs. A second call goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from vq.cli import arguments, train
from vq.cli.errors import command, say
from vq.core import environment

SEGMENTER, ITS_CONFIG = 'layout_segmenter', 'configs/layout/digits_segmenter.py'
NAME, CONFIG = 'layout_digits', 'configs/layout/digits.py'
DRAWN = 40  # canvases


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser('vq.demo', 'layout: train a small UNet that draws digits where boxes ask for them.')
    parser.add_argument('--seed', type=int, default=3407)
    parser.add_argument('--work-dir', default=None, help='folder of all runs (default: work_dirs)')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    environment.prepare()
    from vq.assembly.building import runs_folder

    runs, started = runs_folder(options.work_dir), time.perf_counter()
    place = ['--work-dir', options.work_dir] if options.work_dir else []
    for name, config in ((SEGMENTER, ITS_CONFIG), (NAME, CONFIG)):
        words = [name, config, '--auto-resume', *place, '--seed', str(options.seed)]
        print(f'\n$ {shlex.join(["python", "-m", "vq.train", *words])}', flush=True)
        if code := train.main(words):
            say(f'the demo stopped: this command ended with exit code {code}', 'See above. The same command goes on.')
            return code
    made, true, picture = draw(runs, options.seed)
    print(
        f'\nDone in {time.perf_counter() - started:.0f} s. The segmenter finds {100 * made:.0f} % of the digits asked for '
        f'in what is drawn, and {100 * true:.0f} % in true canvases.\nCanvases above, drawn ones below: {picture}\n'
        f'Draw layouts of your own in a browser: {shlex.join(["vq", "web", *place])}',
        flush=True,
    )
    return 0


def draw(runs: Path, seed: int) -> tuple[float, float, Path]:
    """Draw the layouts of held-out canvases. The shares of boxes that the segmenter finds again, and a picture."""
    import vq
    from vq.io import runs as known
    from vq.report.layouts import draw_split

    config = known.find(runs / NAME).config
    segmenter = vq.load(runs / SEGMENTER)
    file = runs / NAME / 'layouts.png'
    return *draw_split(vq.load(runs / NAME), segmenter, config['validator']['dataset'], DRAWN, seed, file), file
