"""Test one set of weights: ``auto_torchrun -m vq.test NAME CONFIG --load-model-from F [--tokenize] [--visual]``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from vq.cli import arguments
from vq.cli.errors import command
from vq.cli.next_steps import say_next_of
from vq.core import environment
from vq.core.errors import UserError

logger = logging.getLogger('vq')

EXAMPLES = """
examples:
  vq test digits                                        the newest checkpoint of the run
  vq test digits --visual --tokenize --num-samples 100  pictures and tokens of the first images too
  vq test other digits/vq_ema.py --load-model-from digits
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser('vq.test', 'Measure one set of weights; optionally write tokens and pictures.')
    parser.epilog = EXAMPLES
    arguments.add_run(parser, config_optional=True)
    arguments.add_weights(parser, own=True)
    parser.add_argument('--tokenize', action='store_true', help='also write the tokens of the split as shards')
    parser.add_argument(
        '--visual',
        action='store_true',
        help='also write input, reconstruction and error of each sample, and the worst and best, as PNG',
    )
    parser.add_argument(
        '--samples', action='store_true', help='also write all reconstructions as samples.npz, for vq.tools.fid and ADM'
    )
    parser.add_argument('--num-samples', type=int, default=None, help='only the first N samples of the split')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.prepare()
    from vq.assembly import building
    from vq.assembly.against_run import tell_differences
    from vq.assembly.compose import compose, config_of, own_weights
    from vq.assembly.frozen_weights import take_tokenizer
    from vq.cli import results
    from vq.runners.callbacks.reconstructions import ReconstructionsCallback
    from vq.runners.callbacks.samples import SamplesCallback
    from vq.runners.named import add
    from vq.runners.tokenizer import TokenWriter
    from vq.runners.validator import Validator

    if options.num_samples is not None and options.num_samples < 1:
        raise UserError(f'--num-samples is {options.num_samples}', 'Give 1 or more.')
    options.load_model_from = own_weights(options)
    options.config = config_of(options)
    config = compose(options.config, options.config_options, options.override, options.autocast, trusted=options.trust)
    options.load_model_from = take_tokenizer(config, options.load_model_from, required=True)
    folder = building.runs_folder(options.work_dir) / f'{options.name}_test'
    validator, context = building.open_runner('vq.test', argv, options, config, folder, 'validator', Validator, 'Validator')
    tell_differences(options, config, context)
    building.load_weights(validator.model, options.load_model_from, options.weights, context)
    building.note_hashes(config, validator.model, context)
    validator.limit = options.num_samples
    if options.visual:
        add(validator.callbacks, ReconstructionsCallback())
    if options.samples:
        add(validator.callbacks, SamplesCallback())
    try:
        validator.setup()
        measured = validator.evaluate()
        record = results.write(folder / 'results.json', measured, context, config, options, options.load_model_from, validator)
        if options.tokenize:
            writer = TokenWriter(validator.model, validator.dataset, validator.dataloader, validator.strategy)
            writer.limit = options.num_samples
            writer.bind(context)
            logger.info('tokens: %s', writer.evaluate()['folder'])
    finally:
        validator.close()
    if building.is_first_process():
        results.print_table({options.name: record})
    if argv is None:  # typed by somebody, not called by another program
        say_next_of('test', options.load_model_from[-1], options.work_dir)
    return 0
