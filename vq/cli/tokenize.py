"""Tokenise a split: ``auto_torchrun -m vq.tasks.image_tokenization.tokenize NAME CONFIG --load-model-from F``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from vq.cli import arguments
from vq.cli.errors import command
from vq.cli.next_steps import say_next_of
from vq.core import environment
from vq.core.errors import UserError

KIND = 'VQITRunnerRegistry.Tokenizer'

EXAMPLES = """
examples:
  vq tokenize digits            the validation split
  vq tokenize digits --train    the training split, without augmentation
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.tasks.image_tokenization.tokenize', 'Write the tokens of a split as shards; resumes by itself.'
    )
    parser.epilog = EXAMPLES
    arguments.add_run(parser, config_optional=True)
    arguments.add_weights(parser, own=True)
    parser.add_argument(
        '--train', action='store_true', help="the trainer's split, with the validator's transform (no augmentation)"
    )
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
    from vq.runners.tokenizer import TokenWriter

    options.load_model_from = own_weights(options)
    options.config = config_of(options)
    config = compose(options.config, options.config_options, options.override, options.autocast, trusted=options.trust)
    options.load_model_from = take_tokenizer(config, options.load_model_from, required=True)
    validator = config.get('validator', {})
    if validator.get('type', '').split('.')[-1] != 'Tokenizer':
        validator['type'] = KIND
    if options.train:
        if 'trainer' not in config or 'split' not in config['trainer']['dataset']:
            raise UserError(
                '--train needs a trainer whose dataset names a split', 'Leave --train out, or add the split to the config.'
            )
        config['validator']['dataset']['split'] = config['trainer']['dataset']['split']
    name = f'{options.name}_tokenize{"_train" if options.train else ""}'
    folder = building.runs_folder(options.work_dir) / name
    prog = 'vq.tasks.image_tokenization.tokenize'
    writer, context = building.open_runner(prog, argv, options, config, folder, 'validator', TokenWriter, KIND)
    tell_differences(options, config, context)
    building.load_weights(writer.model, options.load_model_from, options.weights, context)
    building.note_hashes(config, writer.model, context)
    measured = writer.run()
    if building.is_first_process():
        results.print_table({name: {'results': measured}})
    if argv is None:  # typed by somebody, not called by another program
        say_next_of('tokenize', options.load_model_from[-1], options.work_dir)
    return 0
