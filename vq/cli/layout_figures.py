"""Figures of images drawn by layouts: ``python -m vq.tools.layouts FOLDER``, a folder of ``vq.sample --protocol``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vq.cli import arguments
from vq.cli.errors import command
from vq.core import environment
from vq.core.errors import UserError

if TYPE_CHECKING:
    import torch

    from vq.core.conditions import Condition
    from vq.data.protocol_folder import DrawnLayouts

RECORD = 'layout_figures.json'
EXAMPLES = """
examples:
  python -m vq.tools.layouts work_dirs/coco_no_text_sample
  python -m vq.tools.layouts work_dirs/layout_digits_sample --classifier classifier --segmenter segmenter --lpips none

fid        all drawn images against the true ones
scene_fid  the crops of all boxes against those of the true images
cas        accuracy, on true crops, of a linear classifier of features that has learnt from drawn crops alone
diversity  mean LPIPS of pairs of images of one layout, and its deviation over layouts
boxes      share of crops that --classifier assigns to the class asked for
found      share of boxes that --segmenter finds again: a region of this class with an IoU of 0.5 or more
box_iou    mean IoU of boxes and the regions that answer for them, 0 where none does
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.tools.layouts', f'Figures of a folder of vq.sample --protocol, as a table and in FOLDER/{RECORD}.'
    )
    parser.epilog = EXAMPLES
    parser.add_argument('folder', metavar='FOLDER', help='what vq.sample --protocol wrote, such as work_dirs/NAME_sample')
    parser.add_argument('--classifier', metavar='RUN', help='a classifier of crops')
    parser.add_argument(
        '--features',
        choices=('inception', 'classifier', 'none'),
        default=None,
        help='of fid, scene_fid and cas (default: classifier if one is given, else inception); none: without these figures',
    )
    parser.add_argument('--segmenter', metavar='RUN', help='a segmenter')
    parser.add_argument(
        '--lpips', choices=('alex', 'vgg', 'squeeze', 'none'), default='alex', help='network of diversity (default: alex)'
    )
    parser.add_argument(
        '--crop-size',
        type=int,
        metavar='N',
        help='pixels a side of crops (default: 224, as in papers; of --classifier: its own)',
    )
    parser.add_argument('--device', default='auto', help='cpu, cuda, cuda:1, mps (default: auto)')
    arguments.add_trust(parser)
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.prepare()
    if options.features == 'classifier' and options.classifier is None:
        raise UserError('--features is classifier, and none is given', 'Add --classifier RUN.')
    if options.crop_size is not None and options.crop_size < 1:
        raise UserError(f'--crop-size is {options.crop_size}', 'Give pixels, such as 224.')
    from vq.cli.data_report import table
    from vq.data.protocol_folder import DrawnLayouts
    from vq.io import atomic

    drawn = DrawnLayouts(options.folder)
    found, how = figures(drawn, options)
    named = drawn.record['name'] if drawn.record.get('complete', True) else f'a trial of {drawn.record["name"]}'
    about = f'{named}: {drawn.layouts:,} layouts, {drawn.samples} images of each'
    print(about)
    table('', ['figure', 'drawn', 'true'], [[name, *map(shown, pair)] for name, pair in found.items()])
    print(f'features of {how["network"]}; ids {drawn.record["ids_sha256"][:12]}')
    figure = {name: {'drawn': made, 'true': true} for name, (made, true) in found.items()}
    atomic.write_json(drawn.folder / RECORD, {'protocol': drawn.record, 'features': how, 'figures': figure})
    print(f'written to {drawn.folder / RECORD}')
    return 0


def shown(value: float | None) -> str:
    return '' if value is None else f'{value:.4g}'


def figures(drawn: DrawnLayouts, options: argparse.Namespace) -> tuple[dict[str, tuple[float, float | None]], dict[str, Any]]:
    """A figure of the drawn images and, where there is one, the same of the true images; and what measured them."""
    from vq.metrics.drawn_layouts import assigned, cas_of, diversity_of, fid_of, over_boxes, scene_fid_of
    from vq.metrics.scenes import SIDE

    device = device_of(options.device)
    classifier = None if options.classifier is None else classifier_of(options.classifier, options.trust).to(device)
    own = options.features == 'classifier' or (options.features is None and classifier is not None)
    found: dict[str, tuple[float, float | None]] = {}
    how: dict[str, Any] = {'classifier': options.classifier, 'segmenter': options.segmenter, 'network': 'none'}
    if options.features != 'none':
        network = classifier if own and classifier is not None else inception().to(device)
        size = options.crop_size or (classifier.image_size if own and classifier is not None else None) or SIDE
        found['fid'] = fid_of(drawn, network), None
        found['scene_fid'] = scene_fid_of(drawn, network, size, own), None
        found['cas'] = cas_of(drawn, network, size, own), None
        how |= {**network.description, 'crops': size, 'crops_keep_their_shape': own}
    if options.lpips != 'none' and drawn.samples > 1:
        spread = diversity_of(drawn, lpips(options.lpips, device), device)
        found['diversity'], found['deviation'] = (spread.mean, None), (spread.deviation, None)
    if classifier is not None:
        side = options.crop_size or classifier.image_size or SIDE
        found['boxes'] = over_boxes(drawn, lambda images, layout: assigned(classifier, images, layout, side))
    if options.segmenter is not None:
        found |= seen_again(drawn, options.segmenter, options.trust, device)
    return found, how


def seen_again(drawn: DrawnLayouts, run: str, trust: bool, device: torch.device) -> dict[str, tuple[float, float | None]]:
    import vq
    from vq.io.runs import find
    from vq.metrics.drawn_layouts import over_boxes
    from vq.metrics.layout import OVERLAP, answers

    kind = find(run, trust=trust).spec.kind
    if kind != 'segmenter':
        raise UserError(
            f'{run} is the run of a {kind or "model"}', 'Give that of a segmenter, such as layout/digits_segmenter.py.'
        )
    segmenter = vq.load(run, device=device, trust=trust)

    def overlap(images: torch.Tensor, layout: Condition) -> torch.Tensor:
        return answers(segmenter.regions(images), layout)

    return {
        'found': over_boxes(drawn, lambda images, layout: overlap(images, layout) >= OVERLAP),
        'box_iou': over_boxes(drawn, overlap),
    }


def device_of(name: str) -> torch.device:
    import torch

    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    return torch.device(name)


def classifier_of(run: str, trust: bool) -> Any:
    from vq.teachers.classifier import classifier_features

    return classifier_features(run, trust=trust)


def inception() -> Any:
    """The network of FID, with its published weights."""
    from vq.teachers.inception import FIDInception

    network = FIDInception()
    network.load_pretrained()
    return network


def lpips(name: str, device: torch.device) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    from vq.losses.perceptual import LPIPSLoss

    network = LPIPSLoss(net=name)  # type: ignore[arg-type]
    network.load_pretrained()
    distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = network.to(device).distance
    return distance


if __name__ == '__main__':
    sys.exit(main())
