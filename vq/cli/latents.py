"""Mean and deviation of latents, put into a file of the tokenizer: ``auto_torchrun -m vq.tools.latents NAME``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vq.cli import arguments
from vq.cli.errors import command
from vq.core import environment

if TYPE_CHECKING:
    from vq.core.config import PyConfig
    from vq.runners.latents import LatentStatistics

KIND = 'VQITRunnerRegistry.LatentStatistics'

EXAMPLES = """
Writes work_dirs/NAME_latents/tokenizer.safetensors: the tokenizer's weights with the statistics of its latents. Generators
that are trained on this file see latents of zero mean and unit variance. The run itself is not changed.

examples:
  auto_torchrun -m vq.tools.latents kl configs/digits/kl.py --load-model-from work_dirs/kl
  auto_torchrun -m vq.tools.latents kl --load-model-from work_dirs/kl --per element
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.tools.latents', "Measure mean and deviation of a tokenizer's latents over the training split."
    )
    parser.epilog = EXAMPLES
    arguments.add_run(parser, config_optional=True)
    arguments.add_weights(parser, required=True)
    parser.add_argument(
        '--per', choices=('channel', 'element'), default='channel', help='one mean per channel, or per channel and cell'
    )
    parser.add_argument('--validation', action='store_true', help="the validator's split in place of the trainer's")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.prepare()
    from vq.assembly import building
    from vq.assembly.against_run import tell_differences
    from vq.assembly.compose import compose, config_of
    from vq.cli import results
    from vq.runners.latents import LatentStatistics

    options.config = config_of(options)
    config = compose(options.config, options.config_options, options.override, options.autocast, trusted=options.trust)
    config.setdefault('validator', {}).update(type=KIND, per=options.per, metrics=None)
    split = config.get('trainer', {}).get('dataset', {}).get('split')
    if split is not None and not options.validation:
        config['validator']['dataset']['split'] = split
    folder = building.runs_folder(options.work_dir) / f'{options.name}_latents'
    runner, context = building.open_runner(
        'vq.tools.latents', argv, options, config, folder, 'validator', LatentStatistics, KIND
    )
    tell_differences(options, config, context)
    building.load_weights(runner.model, options.load_model_from, options.weights, context)
    measured = runner.run()
    if building.is_first_process():
        results.print_table({options.name: {'results': measured}})
        path = folder / 'tokenizer.safetensors'
        write(path, runner, config, options)
        print(f"written: {path}\nuse it: vq.load('{path}'), or --config-options tokenizer_run::{path}", flush=True)
    return 0


def write(path: Path, runner: LatentStatistics, config: PyConfig, options: argparse.Namespace) -> None:
    """The tokenizer with its statistics, as a converted file."""
    from vq.assembly.compose import runner_config
    from vq.core.config import plain
    from vq.core.random import python_stream
    from vq.core.specs import plain_size
    from vq.io.digest import read_digest
    from vq.io.published.converted import write_converted
    from vq.io.published.keymap import Converted
    from vq.io.runs import find
    from vq.tasks.spec import spec_of_tokenizer

    tokenizer = runner.tokenizer
    height, width = runner.dataset.load(0, python_stream('shape'))['image'].shape[:2]
    tensors = {f'tokenizer.{key}': value.cpu().contiguous() for key, value in tokenizer.state_dict().items()}
    described = plain(runner_config(config, 'validator')['model']['tokenizer'])
    source = find(options.load_model_from[0]).file(options.weights)
    converted = Converted(described, tensors, plain_size((height, width)))
    spec = spec_of_tokenizer(tokenizer, converted.image_size)
    write_converted(path, converted, 'latents', source.name, read_digest(source), spec)
