"""Cache the statistics of a dataset: ``auto_torchrun -m vq.fid DATASET [--train]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vq.cli import arguments
from vq.cli.errors import command
from vq.core import environment, run_names
from vq.core.errors import UserError

EXAMPLES = """
examples:
  vq fid digits
  vq fid imagenet --train .dataloader.batch_size=1024
  vq fid folder data_root=photos image_size=256
  vq fid imagenet --features imagenet_features.npz

FID of images that are there: auto_torchrun -m vq.tools.fid REFERENCE IMAGES.
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.fid', 'Statistics of a dataset for FID, in pretrained/fid/DATASET_SPLIT.npz; resumes by itself.'
    )
    parser.epilog = EXAMPLES
    parser.add_argument('dataset', metavar='DATASET', help='digits, imagenet, folder, or a dataset config of your own')
    parser.add_argument('--train', action='store_true', help='the training split, without augmentation')
    parser.add_argument(
        '--features',
        nargs='?',
        const='',
        metavar='FILE.npz',
        help='also fp16 features and logits of every image, in the same file; with FILE.npz, fp32 features and ids there',
    )
    parser.add_argument('--config-options', action=arguments.DictAction, help='options of the dataset, e.g. image_size=256')
    parser.add_argument(
        '--override', action=arguments.DictAction, help='values of the runner by path, e.g. .dataloader.batch_size=1024'
    )
    parser.add_argument('--work-dir', default=None, help='folder of all runs (default: work_dirs)')
    parser.add_argument('--seed', type=int, default=3407, help='seed of all randomness (default: 3407)')
    arguments.add_trust(parser)
    return parser


def joined(words: Sequence[str]) -> list[str]:
    """``--features FILE.npz`` as one word; any other word after ``--features`` does not belong to it."""
    found: list[str] = []
    for word in words:
        if found[-1:] == ['--features='] and word.endswith('.npz'):
            found[-1] += word
            continue
        found.append('--features=' if word == '--features' else word)
    return found


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), joined(sys.argv[1:] if argv is None else argv))
    environment.prepare()
    from vq.assembly import building
    from vq.assembly.compose import compose
    from vq.runners.statistics import StatisticsWriter

    options.config = 'fid/interface.py'
    if options.features and not options.features.endswith('.npz'):
        raise UserError(f"--features writes an .npz file, not '{options.features}'", 'Write --features FILE.npz.')
    choices = {'dataset': options.dataset, 'train': options.train, 'features': options.features == ''}
    choices |= {'features_file': options.features or None, **options.config_options}
    overrides = {f'.validator{path}': value for path, value in options.override.items()}
    config = compose(options.config, choices, overrides, trusted=options.trust)
    inside = [part for part in options.dataset.replace('.py', '').split('/') if part not in ('.', '..')]  # of work_dirs
    options.name = run_names.checked(f'fid/{"/".join(inside)}{"_train" if options.train else ""}')
    folder = building.runs_folder(options.work_dir) / options.name
    writer, _ = building.open_runner(
        'vq.fid', argv, options, config, folder, 'validator', StatisticsWriter, 'StatisticsWriter'
    )
    writer.run()
    return 0
