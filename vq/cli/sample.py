"""Sample images: ``auto_torchrun -m vq.sample NAME CONFIG [--num-samples N] [--guidance 4] --load-model-from F``."""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vq.cli import arguments
from vq.cli.errors import command
from vq.cli.next_steps import say_next_of
from vq.core import environment
from vq.core.errors import UserError

KIND = 'VQSMRunnerRegistry.Sampler'

EXAMPLES = """
examples:
  vq sample digits_ar
  vq sample gen --classes rocket boat --num-samples 100 --overwrite
  vq sample digits_ar --classes 3 7 --guidance 2 --overwrite
  vq sample digits_ar digits/ar.py tokenizer_run=digits features_run=digits_ic --num-samples 180 --sweep guidance=1:2:0.5

Classes are balanced: image i is of class i mod n. A word of --classes is the name of a class, or else a number.
The same command gives the same bytes, and resumes after a stop.
A sweep samples one image per image of the validation split, of its class, and measures them by the config's FeatureMetric.
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser('vq.sample', 'Sample images from a trained generator: PNG files or one npz; resumes by itself.')
    parser.epilog = EXAMPLES
    arguments.add_run(parser, config_optional=True)
    arguments.add_weights(parser, own=True)
    parser.add_argument('--num-samples', type=int, default=64, metavar='N', help='images to draw (default: 64)')
    parser.add_argument(
        '--classes', nargs='+', default=None, metavar='C', help='classes by name or number, in turn (default: all)'
    )
    parser.add_argument(
        '--batch-size', type=int, default=None, metavar='B', help="images drawn at once (default: the validator's)"
    )
    parser.add_argument('--format', choices=('png', 'npz'), default='png', help='npz: one file in the format of ADM')
    parser.add_argument('--guidance', type=float, default=None, metavar='S', help='constant scale; 1: no guidance')
    parser.add_argument('--temperature', type=float, default=None, metavar='T', help='divides logits (default: of the config)')
    parser.add_argument('--top-k', type=int, default=None, metavar='K', help='only the K most probable tokens')
    parser.add_argument('--top-p', type=float, default=None, metavar='P', help='only the most probable tokens whose sum is P')
    parser.add_argument(
        '--min-p', type=float, default=None, metavar='P', help='only tokens of at least P times the largest probability'
    )
    parser.add_argument('--greedy', action='store_true', help='always take the most probable token')
    parser.add_argument('--overwrite', action='store_true', help='delete earlier samples of this name')
    parser.add_argument(
        '--sweep', nargs='+', default=None, metavar='SETTING=VALUES', help='a:b:step or a,b,c of the settings above: a table'
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.prepare()
    if options.sweep:
        from vq.cli.sweep import sweep

        return sweep(argv, options)
    from vq.assembly import building, telling
    from vq.assembly.against_run import tell_differences
    from vq.assembly.compose import compose, config_of, own_weights
    from vq.assembly.frozen_weights import take_tokenizer
    from vq.cli import results
    from vq.runners.sampler import ImageSampler

    options.load_model_from = own_weights(options)
    options.config = config_of(options)
    config = compose(options.config, options.config_options, options.override, options.autocast, trusted=options.trust)
    options.load_model_from = take_tokenizer(config, options.load_model_from, required=True)
    how = set_drawing(config, options)
    classes = None if options.classes is None else find_classes(config, options)
    validator = config['validator']
    loader = validator.get('dataloader', {})
    validator.update(
        {
            'type': KIND,
            'metrics': {},
            'callbacks': [],
            'samples': options.num_samples,
            'batch_size': options.batch_size or loader.get('batch_size', 64),
            'classes': classes,
            'format': options.format,
        }
    )
    folder = building.runs_folder(options.work_dir) / f'{options.name}_sample'
    if options.overwrite and building.is_first_process():
        forget(folder)
    sampler, context = building.open_runner('vq.sample', argv, options, config, folder, 'validator', ImageSampler, KIND)
    tell_differences(options, config, context)
    building.load_weights(sampler.model, options.load_model_from, options.weights, context)
    sampler.description = {**how, **describe(sampler.model)}
    told_of = telling.Passing('drawing', sampler, options.load_model_from, context)
    measured = sampler.run()
    if building.is_first_process():
        results.print_table({f'{options.name}_sample': {'results': measured}})
        told_of.end({'images': measured['folder'], 'grid': folder / 'grid.png'})
    if argv is None:  # typed by somebody, not called by another program
        say_next_of('sample', options.load_model_from[-1], options.work_dir)
    return 0


def find_classes(config: Any, options: argparse.Namespace) -> tuple[int, ...]:
    """The numbers of the classes in --classes. Names are those in the spec of the run whose weights are loaded."""
    from vq.core.class_names import class_numbers
    from vq.io import runs

    count: int | None = model_of(config)['generator'].get('classes')
    names: tuple[str, ...] = ()
    with contextlib.suppress(UserError):  # a file that says nothing about its classes: loading it raises its own errors
        names = runs.find(options.load_model_from[-1]).spec.categories
    known = names if count is None or len(names) == count else ()
    return tuple(class_numbers(options.classes, known, count, f'the generator {options.name}'))


def forget(folder: Path) -> None:
    for old in (folder / 'shards', folder / 'samples'):
        if old.is_dir():
            shutil.rmtree(old)
    (folder / 'samples.npz').unlink(missing_ok=True)


def describe(model: Any) -> dict[str, Any]:
    """The weights the samples depend on: a run with samples of other weights is not resumed."""
    from vq.io.weights import state_hash

    return {'weights_hash': state_hash(model)}


def set_drawing(config: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Apply the command line's sampler and guidance settings to the config. Returns the resulting settings."""
    from vq.core.config import plain

    model = model_of(config)
    settings = {
        name: value for name in ('temperature', 'top_k', 'top_p', 'min_p') if (value := getattr(options, name)) is not None
    }
    if options.greedy:
        if settings:
            raise UserError(f'--greedy does not use {", ".join(settings)}', 'Leave one of the two out.')
        model['sampler'] = {'type': 'Greedy'}
    elif settings:
        before = model['sampler'] if str(model['sampler'].get('type', '')).split('.')[-1] == 'Multinomial' else {}
        model['sampler'] = {**before, 'type': 'Multinomial', **settings}
    if options.guidance is not None:
        if options.guidance != 1 and model['generator'].get('classes') == 0:
            raise UserError(
                f'--guidance is {options.guidance:g}, and the generator {options.name} has no classes to be guided by',
                'Leave --guidance out. Guidance needs a generator of images with classes: one folder for each.',
            )
        model['guidance'] = {'type': 'ConstantGuidance', 'scale': options.guidance}
    return {'sampler': plain(model['sampler']), 'guidance': plain(model['guidance'])}


def model_of(config: Any) -> Any:
    """The config of the task, from the validator or else from the trainer."""
    for which in ('validator', 'trainer'):
        model = config.get(which, {}).get('model')
        if model is not None:
            if 'generator' not in model:
                raise UserError(
                    f'{model.get("type")} draws no images', 'Give the config of a generator, such as configs/digits/ar.py.'
                )
            return model
    raise UserError('the config has no model', 'Give the config that trained the generator.')
