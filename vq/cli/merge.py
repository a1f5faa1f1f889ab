"""Merge the weights of models of one architecture: ``vq merge A B --output FILE``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vq.cli import arguments
from vq.cli.errors import command
from vq.core import environment
from vq.core.errors import UserError

METHODS = ('weighted', 'sigmoid', 'inverse_sigmoid', 'add_difference')
EXAMPLES = """
examples:
  vq merge coco_a coco_b --share 0.3 --output merged.safetensors
  vq merge mine other base --method add_difference --share 1 --output merged.safetensors     mine + (other - base)
  vq merge coco_a coco_b --only denoiser.adapters. --output merged.safetensors

formulas, tensor by tensor, s the share:
  weighted         (1 - s) a + s b
  sigmoid          (1 - t) a + t b,  t = s^2 (3 - 2 s)
  inverse_sigmoid  (1 - t) a + t b,  t = 1/2 - sin(asin(1 - 2 s) / 3)
  add_difference   a + s (b - c)
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.cli.merge', 'Merge the weights of models of one architecture into a file for --load-model-from.'
    )
    parser.prog = 'vq merge'
    parser.epilog = EXAMPLES
    parser.add_argument('models', nargs='+', metavar='RUN|FILE', help='two models, or three for add_difference')
    parser.add_argument('--output', required=True, metavar='FILE', help='the file to write; it must not exist')
    parser.add_argument('--method', choices=METHODS, default='weighted', help='see below (default: %(default)s)')
    parser.add_argument('--share', type=float, default=0.5, metavar='S', help='0: the first model (default: %(default)s)')
    parser.add_argument(
        '--only', nargs='+', default=(), metavar='PREFIX', help='keys that change; the others are of the first'
    )
    parser.add_argument(
        '--weights',
        choices=('auto', 'model', 'ema'),
        default='auto',
        help='which weights of a checkpoint: auto takes the moving average if there is one',
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.need_one_process('vq merge')
    environment.prepare()
    from vq.io import tensorfile
    from vq.io.atomic import atomic_file
    from vq.io.merging import merge_weights
    from vq.io.weights import read_weights

    output = Path(options.output)
    if output.exists():
        raise UserError(f'{output} already exists', 'Give another --output, or remove that file.')
    if len(options.models) not in (2, 3):
        raise UserError(f'{len(options.models)} models are given', 'Give two, or three for --method add_difference.')
    read = [read_weights(name, options.weights) for name in options.models]
    third = read[2][0] if len(read) == 3 else None
    found = merge_weights(read[0][0], read[1][0], third, options.method, options.share, tuple(options.only))
    source = read[0][1]
    notes = dict(tensorfile.read_header(source.path).metadata) if source.kind == 'safetensors' else {}
    notes['vq.merged'] = f'{options.method} {options.share:g}: ' + ', '.join(f'{one.sha256:.12}' for _, one in read)
    with atomic_file(output, tensorfile.size_of(found.tensors)) as writer:
        tensorfile.write_tensors(writer, found.tensors, notes)
    for _, one in read:
        print(f'read         {one}')
    print(f'merged       {len(found.merged)} tensors, {len(found.kept)} are those of the first')
    print(f'written      {output} ({output.stat().st_size / 1e6:.1f} MB)')
    print(f'to use it    --load-model-from {output}, with the config of the first')
    return 0
