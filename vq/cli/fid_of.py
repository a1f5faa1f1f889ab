"""FID and related figures of existing images: ``auto_torchrun -m vq.tools.fid REFERENCE IMAGES``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vq.cli import arguments, images
from vq.cli.errors import command
from vq.core import environment
from vq.core.errors import UserError, listing

EXAMPLES = """
examples:
  auto_torchrun -m vq.tools.fid imagenet_validation samples.npz
  auto_torchrun -m vq.tools.fid VIRTUAL_imagenet256_labeled.npz samples/ --figures fid sfid inception_score
  auto_torchrun -m vq.tools.fid originals/ reconstructions/ --figures fid kid precision_recall --work-dir work_dirs/mine
  auto_torchrun -m vq.tools.fid none samples.npz --figures inception_score
"""

FIGURES = ('fid', 'sfid', 'inception_score', 'kid', 'precision_recall', 'density_coverage', 'cmmd')
OF_ROWS = ('kid', 'precision_recall', 'density_coverage', 'cmmd')


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.tools.fid', 'Compare images with a reference set. Each image counts once, for any batch size and number of ranks.'
    )
    parser.epilog = EXAMPLES
    parser.add_argument(
        'reference',
        metavar='REFERENCE',
        help='statistics by name (imagenet_validation: pretrained/fid/imagenet_validation.npz) or file, features, or images',
    )
    parser.add_argument(
        'images', metavar='IMAGES', help="a folder of images, with subfolders, or an .npz file of samples (ADM's)"
    )
    parser.add_argument(
        '--figures',
        nargs='+',
        choices=FIGURES,
        default=['fid', 'inception_score'],
        metavar='FIGURE',
        help=f'of: {", ".join(FIGURES)} (default: fid inception_score)',
    )
    parser.add_argument(
        '--reference-images',
        action='store_true',
        help='use the images of a reference file that also has statistics, for figures that need images',
    )
    images.add_common(parser, 'work_dirs/fid_of/IMAGES')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.prepare()
    from vq.assembly import building
    from vq.cli import results

    folder = Path(options.work_dir) if options.work_dir else building.runs_folder(None) / 'fid_of' / Path(options.images).stem
    figures = tuple(dict.fromkeys(options.figures))
    choices = {'images': options.images, 'figures': figures}
    if set(figures) != {'inception_score'}:
        choices |= reference_choices(options.reference, figures, options.reference_images, folder)
    found = images.measure('fid', argv, options, 'images/interface.py', choices, folder)
    if building.is_first_process():
        images.append_line(folder / 'fid.txt', found.record)
        results.print_table({Path(options.images).stem: found.record})
        print(summary(found.record), flush=True)
    return 0


def reference_choices(name: str, figures: Sequence[str], of_images: bool, folder: Path) -> dict[str, Any]:
    """Options of the config for the argument REFERENCE."""
    path = Path(name).expanduser()
    if name == 'none':
        raise UserError('there is no reference', 'Only inception_score needs none: --figures inception_score.')
    if path.is_dir() or (path.is_file() and path.suffix == '.npz' and is_images(path, figures, of_images)):
        return {'reference_images': str(path), 'reference': str(folder / 'reference' / f'{path.stem}.npz')}
    if path.is_file() and path.suffix in ('.npz', '.pt', '.pth'):
        return {'reference': str(path.absolute())}
    if path.suffix or len(path.parts) > 1:
        raise UserError(
            f'the reference {path} {"is not a file of statistics" if path.exists() else "does not exist"}',
            'Give a name in pretrained/fid, a file of statistics (.npz, .pt), or a folder or .npz file of images.',
        )
    return {'reference': cached(name)}


def is_images(path: Path, figures: Sequence[str], of_images: bool) -> bool:
    """True if the reference is the images in a file, False if it is the statistics in the file."""
    from vq.io.adm import SAMPLES, arrays_in
    from vq.metrics.features.raw import name_of_features

    arrays = arrays_in(path)
    has_statistics = 'mu' in arrays and 'sigma' in arrays
    has_images = SAMPLES in arrays and name_of_features(path) != SAMPLES
    if has_statistics and has_images and not of_images:
        needy = [figure for figure in figures if figure in OF_ROWS]
        if needy and 'features_pooled' not in arrays:
            raise UserError(
                f'{path} has statistics of a set of images and {arrays[SAMPLES][0][0]:,} images of that set; '
                f'{listing(needy)} can only be measured against the images',
                'Measure these figures in another call with --reference-images, and fid without it.',
            )
        return False
    if of_images and not has_images:
        raise UserError(f'{path} holds {listing(arrays)}, and no images', 'Leave out --reference-images.')
    return has_images


def cached(name: str) -> str:
    """The name of statistics; ``imagenet_val`` is short for ``imagenet_validation``."""
    from vq.metrics.features.reference import reference_file

    full = f'{name}idation'
    return full if name.endswith('_val') and not reference_file(name).is_file() else name


def summary(record: dict[str, Any]) -> str:
    """One line to cite."""
    said = record['metrics']['features']
    figures = ', '.join(f'{name} {value:.6g}' for name, value in images.figures_of(record).items() if isinstance(value, float))
    reference = said.get('reference')
    against = ''
    if reference:
        count = f'{reference["count"]:,} images' if reference['count'] else 'count unknown'
        against = f', against {reference["name"]} ({count}, {reference["hash"]})'
    weights = ' WITH RANDOM WEIGHTS: MEANINGLESS' if record['random_weights'] else ''
    network = f'{said["network"]}, {said["preprocessing"]}, {said["precision"]}'
    return f'{figures} of {said["count"]:,} images{against}; {network}{weights}'


if __name__ == '__main__':
    sys.exit(main())
