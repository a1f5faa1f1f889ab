"""Look at data before training, and pack it: ``vq data check FOLDER``, ``vq data show CONFIG``. A table of sub-commands."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from vq.cli import arguments
from vq.cli.errors import command

ONLY_PRINTS = True

EXAMPLES = """
examples:
  vq data check photos                           everything about the folder photos, and how to train on it
  vq data check photos --json photos.json        the same as JSON
  vq data show photos --index 3 --image-size 64  what a model sees of the fourth image
  vq data show digits/vq_ema.py --index 3        what the model of a config sees of it in its first epochs
  vq data stats digits                           exact mean and deviation of each channel
  vq data pack --max-resolution 256 --output-folder packed --train-folder photos
  vq data pack digits --output-folder packed_digits  the datasets of a config, or of a name in configs/datasets
  vq data look packed --index 3                  the fourth row of the packed images
"""


class SubCommand(NamedTuple):
    """``body``: a module with ``add_arguments(parser)`` and ``run(options) -> exit code``."""

    body: str
    about: str


SUB_COMMANDS = {
    'check': SubCommand('vq.cli.data_check', 'counts, classes, sizes, bad files, duplicates, splits, and the line to train'),
    'stats': SubCommand('vq.cli.data_stats', 'exact mean and deviation of each channel, images and classes of each split'),
    'show': SubCommand('vq.cli.data_show', 'one image before and after the transforms, as a picture and in words'),
    'pack': SubCommand('vq.cli.data_pack', 'write images into a few large files, which are read much faster'),
    'look': SubCommand('vq.cli.data_look', 'one row of packed images, tokens or latents; check the files of a set'),
    'latents': SubCommand('vq.cli.data_latents', 'write the latents of a split once, for generators that train on them'),
}


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser('vq.data', 'Look at a folder of images, or at any dataset, before training; pack images.')
    parser.epilog = EXAMPLES
    chosen = parser.add_subparsers(dest='sub_command', metavar='SUBCOMMAND', required=True, title='sub-commands')
    for name, sub_command in SUB_COMMANDS.items():
        body = importlib.import_module(sub_command.body)
        about, formatter = sub_command.about, argparse.RawDescriptionHelpFormatter
        under = chosen.add_parser(name, help=about, description=body.__doc__, formatter_class=formatter)
        body.add_arguments(under)
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    code: int = importlib.import_module(SUB_COMMANDS[options.sub_command].body).run(options)
    return code


if __name__ == '__main__':
    sys.exit(main())
