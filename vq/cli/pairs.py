"""PSNR, SSIM and LPIPS of two folders matched by name: ``auto_torchrun -m vq.tools.pairs A B``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from vq.cli import arguments, images
from vq.cli.errors import command
from vq.core import environment

logger = logging.getLogger('vq')

EXAMPLES = """
examples:
  auto_torchrun -m vq.tools.pairs originals/ reconstructions/
  python -m vq.tools.pairs originals/ reconstructions/ --lpips none --common
  python -m vq.tools.pairs photos/ decoded/ --batch-size 1                        pairs of different sizes
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.tools.pairs', 'PSNR, SSIM (both windows), L1, MSE and LPIPS of images with the same name: a/1.png and a/1.webp.'
    )
    parser.epilog = EXAMPLES
    parser.add_argument('first', metavar='A', help='a folder of images, or an .npz file of samples')
    parser.add_argument('second', metavar='B', help='another')
    parser.add_argument('--common', action='store_true', help='measure the names that are in both, and list the others')
    parser.add_argument(
        '--lpips', choices=('vgg', 'alex', 'squeeze', 'none'), default='vgg', help='network of LPIPS (default: vgg)'
    )
    images.add_common(parser, 'work_dirs/pairs/B')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.prepare()
    from vq.assembly import building
    from vq.cli import results

    folder = Path(options.work_dir) if options.work_dir else building.runs_folder(None) / 'pairs' / Path(options.second).stem
    choices = {
        'first': options.first,
        'second': options.second,
        'common': options.common,
        'lpips': None if options.lpips == 'none' else options.lpips,
    }
    found = images.measure('pairs', argv, options, 'pairs/interface.py', choices, folder)
    if building.is_first_process():
        left_out = found.validator.dataset.unmatched() if options.common else ''  # type: ignore[attr-defined]
        if left_out:
            logger.warning('left out: %s', left_out)
        results.print_table({f'{Path(options.first).stem}, {Path(options.second).stem}': found.record})
    return 0


if __name__ == '__main__':
    sys.exit(main())
