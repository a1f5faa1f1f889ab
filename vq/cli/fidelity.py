"""The figures of torch-fidelity, as a cross-check of ours: ``python -m vq.tools.fidelity REFERENCE IMAGES [--ours]``."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vq.cli import arguments, images
from vq.cli.errors import command
from vq.core import environment
from vq.core.errors import UserError

logger = logging.getLogger('vq')

EXAMPLES = """
examples:
  python -m vq.tools.fidelity originals/ samples.npz
  python -m vq.tools.fidelity imagenet samples.npz --config-options image_size:256 --ours
  python -m vq.tools.fidelity imagenet samples/ --train --figures fid
"""

SMALL = 'vq-small'  # the name of the feature network of dry runs
THEIRS = {  # what is asked for -> the switch of torch-fidelity, and by our names its names of the figures
    'fid': ('fid', {'fid': 'frechet_inception_distance'}),
    'inception_score': ('isc', {'inception_score': 'inception_score_mean'}),
    'kid': ('kid', {'kid': 'kernel_inception_distance_mean'}),
    'precision_recall': ('prc', {'precision': 'precision', 'recall': 'recall'}),
}
INCEPTION = 'inception-v3-compat'  # its name there, which it needs for precision and recall: its default for these is VGG


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.tools.fidelity',
        'FID, Inception Score, KID, precision and recall by torch-fidelity, on one device, with the weights of vq.tools.fid.',
    )
    parser.epilog = EXAMPLES
    parser.add_argument('reference', metavar='REFERENCE', help='a dataset (imagenet, digits, or a config file), or images')
    parser.add_argument('images', metavar='IMAGES', help='a folder of images, or an .npz file of samples')
    parser.add_argument('--train', action='store_true', help='the training split of the dataset')
    parser.add_argument('--ours', action='store_true', help='measure with vq.tools.fid too, and print both')
    parser.add_argument('--figures', nargs='+', choices=[*THEIRS], default=['fid', 'inception_score'], metavar='FIGURE')
    parser.add_argument('--splits', type=int, default=10, help='of the Inception Score; with 1, image order has no effect')
    images.add_common(parser, 'work_dirs/fidelity/IMAGES')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.need_one_process('vq.tools.fidelity')
    environment.prepare()
    from vq.assembly import building, logs
    from vq.cli import results
    from vq.io import atomic
    from vq.io.run_folder import make_folder

    package = torch_fidelity()
    folder = (
        Path(options.work_dir) if options.work_dir else building.runs_folder(None) / 'fidelity' / Path(options.images).stem
    )
    file = weights_file()
    choices = choices_of(options, folder)
    options.override = {'.metrics.features.splits': options.splits, **options.override}
    if options.ours:
        found = images.measure('fidelity', argv, options, 'images/interface.py', choices, folder)
        record, validator = found.record, found.validator
        ours: dict[str, Any] = record['results']
    else:
        make_folder(folder)
        logs.start(folder)
        record, validator, ours = {}, build(options, choices), {}
    theirs = measure(package, options, validator, file)
    shown = {'torch-fidelity': {'results': theirs}}
    if ours:
        mine = {name: ours[name] for name in theirs}
        shown = {'ours': {'results': mine}, **shown}
        shown['difference'] = {'results': {name: mine[name] - theirs[name] for name in theirs}}
    line = shlex.join(['python', '-m', 'vq.tools.fidelity', *(sys.argv[1:] if argv is None else argv)])
    record |= {'torch_fidelity': {**theirs, 'version': package.__version__}, 'weights_file': str(file), 'command': line}
    record.setdefault('random_weights', environment.dry_run())
    record.setdefault('results', {f'torch_fidelity_{name}': value for name, value in theirs.items()})
    atomic.write_json(folder / 'fidelity.json', record)
    images.append_line(folder / 'torch_fidelity.txt', {'results': theirs, 'command': line})
    results.print_table(shown)
    return 0


def torch_fidelity() -> Any:
    try:
        import torch_fidelity as package
    except ImportError as error:
        raise UserError(
            f'torch-fidelity cannot be imported: {error}',
            "Install it: pip install 'vq[peers]'. vq.tools.fid works without it.",
        ) from error
    return package


def weights_file() -> Path:
    """The weights of both networks. Checked first to hold only tensors, because torch-fidelity unpickles the file.

    A dry run has a small network with random weights, which it registers with torch-fidelity.
    """
    from vq.io.plain import read_torch
    from vq.io.pretrained import pretrained_file
    from vq.teachers.inception import FILE

    if environment.dry_run():
        return Path('random weights')
    file = pretrained_file(FILE)
    read_torch(file, mmap=True)
    return file


def choices_of(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    reference = Path(options.reference).expanduser()
    choices = {'images': options.images, 'figures': tuple(dict.fromkeys(options.figures)), 'num_workers': 0}
    choices['reference'] = str(folder / 'reference' / f'{reference.stem}.npz')
    if reference.is_dir() or reference.suffix == '.npz':
        if options.train:
            raise UserError(f'{reference} has no training split', 'Leave out --train: all its images are taken.')
        return {**choices, 'reference_images': str(reference)}
    return {**choices, 'reference_dataset': options.reference, 'train': options.train}


def build(options: argparse.Namespace, choices: Mapping[str, Any]) -> Any:
    """The runner with both datasets, as vq.tools.fid builds it."""
    from vq.assembly.building import build_runner
    from vq.assembly.compose import compose

    overrides = {f'.validator{path}': value for path, value in options.override.items()}
    config = compose('images/interface.py', {**choices, **options.config_options}, overrides, trusted=options.trust)
    return build_runner(config, 'validator', options.seed)


def measure(package: Any, options: argparse.Namespace, validator: Any, file: Path) -> dict[str, float]:
    import torch

    from vq.runners.images import Pictures

    first = Pictures(validator.dataset)
    second = None if validator.reference is None else Pictures(validator.reference)
    counts = [len(part) for part in (first, second) if part is not None]
    wanted = {switch: name in options.figures for name, (switch, _) in THEIRS.items()}
    if 'inception_score' in options.figures and not 1 <= options.splits <= counts[0]:
        raise UserError(
            f'an inception score of {options.splits} splits needs at least as many images, and there are {counts[0]}',
            'Give more images, or fewer --splits.',
        )
    size = min([1000, *counts])
    if options.figures.count('kid') and size < 1000:
        logger.warning('kid: subsets of %d instead of 1000, because there are no more images', size)
    network = small_network() if environment.dry_run() else {'feature_extractor_weights_path': str(file)}
    if 'feature_extractor' not in network:
        network |= {'feature_extractor': INCEPTION, 'feature_layer_prc': '2048'}
    with contextlib.redirect_stdout(io.StringIO()):
        found = package.calculate_metrics(
            input1=first,
            input2=second,
            cuda=torch.cuda.is_available(),
            batch_size=options.batch_size or 64,
            isc_splits=options.splits,
            kid_subset_size=size,
            save_cpu_ram=True,
            verbose=False,
            **network,
            **wanted,
        )
    return {
        name: float(found[key])
        for asked, (_, keys) in THEIRS.items()
        if asked in options.figures
        for name, key in keys.items()
    }


def small_network() -> dict[str, Any]:
    """The feature network of dry runs as torch-fidelity's: its settings."""
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

    from vq.teachers.small import SmallFeatures

    class Small(FeatureExtractorBase):  # type: ignore[misc]
        def __init__(self, name: str, wanted: Sequence[str], **_: Any) -> None:
            super().__init__(name, wanted)
            self.network = SmallFeatures()

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return 'pooled', 'logits'

        def forward(self, image: Any) -> tuple[Any, ...]:
            found = self.network(image)
            return tuple(getattr(found, name) for name in self.features_list)

    if SMALL not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(SMALL, Small)
    layers = {f'feature_layer_{name}': 'pooled' for name in ('fid', 'kid', 'prc')} | {'feature_layer_isc': 'logits'}
    return {'feature_extractor': SMALL, **layers}


if __name__ == '__main__':
    sys.exit(main())
