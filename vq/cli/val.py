"""Validate: ``auto_torchrun -m vq.val NAME CONFIG [--load-from iter_{15..26}0000]``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vq.cli import arguments
from vq.cli.errors import command
from vq.cli.next_steps import say_next_of
from vq.core import environment
from vq.core.errors import UserError, listing

logger = logging.getLogger('vq')

EXAMPLES = """
examples:
  vq val digits                                         every checkpoint of the run
  vq val digits --load-from 'iter_{4..7}00'             these
  vq val digits --again .validator.dataloader.batch_size=100
  vq val other digits/vq_ema.py --load-model-from digits
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser('vq.val', 'Validate checkpoints of a run, each once; a JSON file per checkpoint, one table.')
    parser.epilog = EXAMPLES
    arguments.add_run(parser, config_optional=True)
    arguments.add_weights(parser)
    parser.add_argument(
        '--load-from',
        nargs='+',
        default=[],
        metavar='iter_N',
        help='checkpoints of the run, brace patterns allowed (default: all)',
    )
    parser.add_argument('--again', action='store_true', help='validate again the checkpoints that have results')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.prepare()
    from vq.assembly import building, telling
    from vq.assembly.against_run import tell_differences
    from vq.assembly.compose import compose, config_of
    from vq.assembly.frozen_weights import take_tokenizer
    from vq.cli import results
    from vq.io import history
    from vq.runners.validator import Validator

    options.config = config_of(options)
    config = compose(options.config, options.config_options, options.override, options.autocast, trusted=options.trust)
    options.load_model_from = take_tokenizer(config, options.load_model_from)
    folder = building.runs_folder(options.work_dir) / options.name
    targets = find_targets(folder, options)
    validator, context = building.open_runner(
        'vq.val', argv, options, config, folder / 'val', 'validator', Validator, 'Validator'
    )
    damaged = history.list_damaged(folder / 'checkpoints')
    if damaged and not options.load_model_from and building.is_first_process():
        logger.warning('not validated: %s', history.describe_damaged(damaged))
    tell_differences(options, config, context)
    found: dict[str, dict[str, Any]] = {}
    told_of = telling.Passing('validating', validator, [*targets], context)
    try:
        validator.setup()
        for label, files in targets.items():
            file = folder / 'val' / label / 'results.json'
            old = None if options.again else results.read_same(file, config, options, files)
            if old is not None:
                logger.info('%s has results already (--again makes new ones)', label)
                found[label] = old
                continue
            building.load_weights(validator.model, files, options.weights, context)
            building.note_hashes(config, validator.model, context)
            validator.work_dir = file.parent
            measured = validator.evaluate()
            found[label] = results.write(file, measured, context, config, options, files, validator)
            if building.is_first_process() and history.is_complete(folder / 'checkpoints' / label):
                history.note_metrics(folder / 'checkpoints' / label, numbers(measured))
    finally:
        validator.close()
    if building.is_first_process():
        results.print_table(found)
        told_of.end({'results': folder / 'val' / (next(iter(found)) if len(found) == 1 else '*') / 'results.json'})
    if argv is None:  # typed by somebody, not called by another program
        say_next_of('val', [options.name, *options.load_model_from][-1], options.work_dir)
    return 0


def find_targets(folder: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    """Label -> files to load."""
    from vq.io import history

    if options.load_from:
        names = [Path(pattern).name for pattern in options.load_from]
        found, missing = history.expand(folder / 'checkpoints', *names)
        if missing:
            there = listing(path.name for _, path in found)
            logger.warning('%s has no complete checkpoint %s; validated: %s', folder, listing(missing), there)
        return {path.name: [*options.load_model_from, str(path)] for _, path in found}
    if options.load_model_from:
        return {'given': list(options.load_model_from)}
    paths = [path for _, path in history.list_complete(folder / 'checkpoints')]
    if not paths:
        damaged = history.describe_damaged(history.list_damaged(folder / 'checkpoints'))
        said = f'{folder} has no complete checkpoint' + (f': {damaged}' if damaged else '')
        raise UserError(said, 'Train first, or give weights with --load-model-from.')
    return {path.name: [str(path)] for path in paths}


def numbers(measured: Mapping[str, Any]) -> dict[str, float]:
    """The figures by which checkpoints can be compared."""
    return {name: float(value) for name, value in measured.items() if isinstance(value, int | float)}
