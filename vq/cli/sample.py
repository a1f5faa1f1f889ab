"""Sample images: ``auto_torchrun -m vq.sample NAME CONFIG [--num-samples N] [--guidance 4] --load-model-from F``."""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.cli import arguments
from vq.cli.errors import command
from vq.cli.next_steps import say_next_of
from vq.cli.protocol import Asking, protocol_of
from vq.core import environment
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.interfaces.conditions import Asked

KIND = 'VQSMRunnerRegistry.Sampler'
SAMPLES = 64  # images, unless something says how many
SETTINGS = (  # that a task may have
    'guidance',
    'temperature',
    'top_k',
    'top_p',
    'min_p',
    'steps',
    'sampler',
    'history',
    'num_iter',
    'cfg_schedule',
)

EXAMPLES = """
examples:
  vq sample digits_ar
  vq sample gen --classes rocket boat --num-samples 100 --overwrite
  vq sample digits_ar --classes 3 7 --guidance 2 --overwrite
  vq sample digits_diffusion --sampler dpmsolver --steps 20 --history 8
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
    parser.add_argument('--num-samples', type=int, default=None, metavar='N', help=f'images to draw (default: {SAMPLES})')
    parser.add_argument(
        '--text', nargs='+', default=None, metavar='TEXT', help='texts, in turn, for generators that take texts'
    )
    parser.add_argument(
        '--negative-text', nargs='+', default=None, metavar='TEXT', help='texts, in turn, that guidance leads away from'
    )
    parser.add_argument(
        '--layout', default=None, metavar='FILE', help='JSON or text file of boxes, for generators that take layouts'
    )
    parser.add_argument(
        '--protocol', default=None, metavar='NAME', help='layouts of the validation split: coco-stuff-3097x5, layouts-NxK, ...'
    )
    parser.add_argument('--limit', type=int, default=None, metavar='N', help='a trial of a protocol: its first N layouts')
    parser.add_argument(
        '--classes', nargs='+', default=None, metavar='C', help='classes by name or number, in turn (default: all)'
    )
    parser.add_argument(
        '--batch-size', type=int, default=None, metavar='B', help="images drawn at once (default: the validator's)"
    )
    parser.add_argument('--format', choices=('png', 'npz'), default='png', help='npz: one file in the format of ADM')
    parser.add_argument('--guidance', type=float, default=None, metavar='S', help='constant scale; 1: no guidance')
    parser.add_argument(
        '--temperature', type=float, default=None, metavar='T', help='divides logits, or scales noise (default: of the config)'
    )
    parser.add_argument('--top-k', type=int, default=None, metavar='K', help='only the K most probable tokens')
    parser.add_argument('--top-p', type=float, default=None, metavar='P', help='only the most probable tokens whose sum is P')
    parser.add_argument(
        '--min-p', type=float, default=None, metavar='P', help='only tokens of at least P times the largest probability'
    )
    parser.add_argument('--steps', type=int, default=None, metavar='N', help='steps of a sampler that has steps')
    parser.add_argument('--sampler', default=None, metavar='NAME', help='sampler of diffusion: Euler, Heun, DDIM, PLMS, ...')
    parser.add_argument(
        '--history', type=int, default=None, metavar='K', help='diffusion: also a grid of K states on the way to each image'
    )
    parser.add_argument(
        '--num-iter', type=int, default=None, metavar='N', help='MAR: iterations, each of which draws some tokens'
    )
    parser.add_argument(
        '--cfg-schedule', default=None, metavar='NAME', help='MAR: guidance over these: constant, linear or cosine'
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
    protocol = protocol_of(options)
    options.num_samples = SAMPLES if options.num_samples is None else options.num_samples
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
    model = task_of(config)[0]
    asked = asked_for(options, model)
    validator = config['validator']
    loader = validator.get('dataloader', {})
    validator.update(
        {
            'type': KIND,
            'metrics': {},
            'callbacks': [],
            'samples': options.num_samples,
            'batch_size': options.batch_size or loader.get('batch_size', 64),
            'format': options.format,
        }
    )
    folder = building.runs_folder(options.work_dir) / f'{options.name}_sample'
    sampler, context = building.open_runner('vq.sample', argv, options, config, folder, 'validator', ImageSampler, KIND)
    sampler.asked = asked
    asking = None if protocol is None else Asking(protocol, sampler, options.limit, asked, labels_of(model))
    if options.overwrite and building.is_first_process():
        forget(folder)
    tell_differences(options, config, context)
    building.load_weights(sampler.model, options.load_model_from, options.weights, context)
    sampler.description = {**how, **describe(sampler.model), **({} if asking is None else asking.producer)}
    told_of = telling.Passing('drawing', sampler, options.load_model_from, context)
    measured = sampler.run()
    if building.is_first_process():
        results.print_table({f'{options.name}_sample': {'results': measured}})
        told_of.end({'images': measured['folder']})
        if asking is not None:
            said = {'random_weights': context.random_weights, 'command': context.command}
            weights = sampler.description['weights_hash']
            print(asking.write(folder, {'drawn': {**how, 'seed': options.seed}, 'weights_hash': weights, **said}), flush=True)
        for name in ('grid.png', *(['history.png'] if options.history else [])):
            print(f'{folder / name}', flush=True)
    if argv is None:  # typed by somebody, not called by another program
        say_next_of('sample', options.load_model_from[-1], options.work_dir)
    return 0


def asked_for(options: argparse.Namespace, model: Any) -> Asked:
    """What --classes, --text, --negative-text and --layout ask for. Names of classes are those in the spec of the run."""
    from vq.core.class_names import class_numbers
    from vq.interfaces.conditions import Asked
    from vq.io import runs
    from vq.io.layouts import read_layouts

    inner = parts_of(model)
    count: int | None = model.get('classes', inner.get('classes'))
    names: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    with contextlib.suppress(UserError):  # a file that says nothing about its classes: loading it raises its own errors
        spec = runs.find(options.load_model_from[-1]).spec
        names, size = spec.categories, spec.image
    known = names if count is None or len(names) == count else ()
    asked = options.classes
    numbers = None if asked is None else class_numbers(asked, known, count, f'the generator {options.name}')
    layout = None if options.layout is None else read_layouts(Path(options.layout), names, labels_in(inner), size)
    return Asked(numbers, options.text, layout, options.negative_text)


def parts_of(model: Any) -> dict[str, Any]:
    """What the configs of conditioner and generator say."""
    return {**(model.get('conditioner') or {}), **(model.get('generator') or {})}


def labels_of(model: Any) -> int | None:
    return labels_in(parts_of(model))


def labels_in(conditioner: Mapping[str, Any]) -> int | None:
    """The number of classes of boxes, from the config of a conditioner, which can be a mixture."""
    parts = [conditioner, *(conditioner.get('parts') or {}).values()]
    return next((part['labels'] for part in parts if part.get('labels') is not None), None)


def forget(folder: Path) -> None:
    for old in ('protocol.json', 'ids.txt', 'samples.npz'):
        (folder / old).unlink(missing_ok=True)
    for old in ('shards', 'samples', 'layouts', 'truth'):
        if (folder / old).is_dir():
            shutil.rmtree(folder / old)


def describe(model: Any) -> dict[str, Any]:
    """The weights the samples depend on: a run with samples of other weights is not resumed."""
    from vq.io.weights import state_hash

    return {'weights_hash': state_hash(model)}


def set_drawing(config: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Apply the settings of the command line to the config. Returns all settings that the images depend on."""
    model, kind = task_of(config)
    given = {name: getattr(options, name) for name in SETTINGS}
    settings = {name: value for name, value in given.items() if value is not None}
    found: dict[str, Any] = kind.set_drawing(model, settings | ({'greedy': True} if options.greedy else {}))
    return found


def task_of(config: Any) -> tuple[Any, Any]:
    """The config of the task, from the validator or else from the trainer, and its class."""
    from vq.core.registry import find_item
    from vq.registries import VQTaskRegistry

    for which in ('validator', 'trainer'):
        model = config.get(which, {}).get('model')
        if model is not None:
            kind = find_item(VQTaskRegistry, model.get('type'), f'{which}.model')[1]
            if not hasattr(kind, 'draw'):
                raise UserError(
                    f'{model.get("type")} draws no images', 'Give the config of a generator, such as configs/digits/ar.py.'
                )
            return model, kind
    raise UserError('the config has no model', 'Give the config that trained the generator.')
