"""Train: ``auto_torchrun -m vq.train NAME CONFIG``."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vq.cli import arguments
from vq.cli.errors import command, leave, say
from vq.cli.next_steps import say_next_of
from vq.core import environment
from vq.core.errors import UserError
from vq.launch import failures

if TYPE_CHECKING:
    from vq.runners.resuming import Resume
    from vq.runners.trainer import Trainer

OUTLIVES_OUTPUT = True  # the product of a training is the run

EXAMPLES = """
examples:
  vq train digits digits/vq_ema.py
  vq train digits --auto-resume                         go on, or end at once if the run is done
  vq train narrow digits/vq_ema.py codebook_size=128 .trainer.dataloader.batch_size=32
  vq --max-restarts 3 train safe digits/vq_ema.py       start again after a crash
  vq train digits_ar digits/ar.py tokenizer_run=digits  a generator on the tokens of the first run
  vq train digits_line digits/ar.py tokenizer_run=digits rope=line    one that vq export accepts
  vq train digits_diffusion diffusion/digits.py tokenizer_run=digits    diffusion on latents of the first run
  vq train digits_ic ic/digits.py                       a classifier, whose features measure samples

KEY=VALUE is an option of the config, .PATH=VALUE a value of the composed config.
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser('vq.train', 'Train the model that a config describes.')
    parser.epilog = EXAMPLES
    arguments.add_run(parser, config_optional=True)
    arguments.add_weights(parser)
    parser.add_argument('--load-from', metavar='iter_N', help='resume from this checkpoint of the run')
    parser.add_argument(
        '--auto-resume', action='store_true', help='resume from the newest checkpoint, or start if there is none'
    )
    parser.add_argument('--change', action='store_true', help='resume although settings differ from the run, and list them')
    parser.add_argument(
        '--overwrite', action='store_true', help='start over: delete an earlier run of this name, except its log'
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options, parent = arguments.parse(make_parser(), argv), os.getppid()
    environment.prepare()
    trainer = train(options, argv)
    if trainer.stop_requested:
        why = 'stopped by a signal' if os.getppid() == parent else 'stopped, because the launcher of this rank has gone,'
        message = f'{why} after step {trainer.step} of {trainer.iters}'
        hint = 'Go on with the same command and --auto-resume.'
        leave(message, hint, 1, stopped=True)  # else the launcher would restart the run
        say(message, hint)
        return 1
    if argv is None:  # typed by somebody, not called by another program
        say_next_of('train', trainer.work_dir, options.work_dir)
    return 0


def train(options: argparse.Namespace, argv: Sequence[str] | None, called: str = '') -> Trainer:
    """The training that ``options`` describe; returns its runner after the last step. ``called``: the call in place of the
    command line, for the records of the run."""
    from vq.assembly import building, free_memory, logs, telling
    from vq.assembly.compose import compose
    from vq.assembly.frozen_weights import take_tokenizer
    from vq.cli import beginnings, restarts
    from vq.io import run_lock
    from vq.runners.trainer import Trainer

    options.config = options.config or config_to_resume(options)
    config = compose(options.config, options.config_options, options.override, options.autocast, trusted=options.trust)
    options.load_model_from = take_tokenizer(config, options.load_model_from)
    folder = building.runs_folder(options.work_dir) / options.name
    launch = restarts.find_launch()
    with contextlib.ExitStack() as stack:
        told = stack.enter_context(run_lock.held(folder, launch)) if building.is_first_process() else []
        restarted = restarts.has_begun(folder, launch)  # then the options of the first start do not apply
        start = beginnings.find(folder, options, restarted)
        starts_over, changes = start.starts_over, []
        # a launcher ends the other ranks; without one, each rank has to refuse by itself
        if building.is_first_process() or not environment.is_set(failures.VARIABLE):
            beginnings.check(start)
            changes = [] if restarted else beginnings.changes(start, config, options)

        def claim() -> None:
            for line in beginnings.claim(start):
                logger.warning('%s', line)
            if not restarted:
                restarts.note(folder, launch, options.load_from)

        if building.is_first_process():
            logger = logs.start(folder)
            for line in [*told, *changes]:
                logger.warning('%s', line)
            if not starts_over:
                claim()
        trainer, context = building.open_runner('vq.train', argv, options, config, folder, 'trainer', Trainer, 'Trainer')
        context.preflight, context.command = True, called or context.command
        if building.is_first_process() and starts_over:
            context.begin = claim  # a config or weights that do not fit must not cost the earlier run
        if building.is_first_process():
            told_of = telling.Training(trainer, str(free_memory.look(config, trainer)))
            context.announce = told_of.begin
        strict = loads_strictly(trainer)
        building.load_weights(trainer.model, options.load_model_from, options.weights, context, strict, statistics=False)
        trainer.resumed = None if start.checkpoint is None else open_checkpoint(start.checkpoint, strict)
        trainer.run()
        if building.is_first_process() and not trainer.stop_requested:
            told_of.end()
    return trainer


def config_to_resume(options: argparse.Namespace) -> str:
    """The config of the run NAME, if the command resumes it and CONFIG is left out."""
    from vq.assembly import building
    from vq.io import runs

    if not (options.auto_resume or options.load_from):
        raise UserError('CONFIG is needed to start a run', 'Give a config file, or resume the run with --auto-resume.')
    run = runs.find(building.runs_folder(options.work_dir) / options.name)
    if run.checkpoint is None:
        raise UserError(f'{run.weights} is a file, which has no config of a training', 'Give CONFIG.')
    return str(run.checkpoint)


def loads_strictly(trainer: Trainer) -> bool:
    """``load_state_dict.strict`` of the checkpoint callback. It holds for resumes and for ``--load-model-from``."""
    from vq.runners.callbacks.checkpoint import CheckpointCallback

    callbacks = [callback for callback in trainer.callbacks.values() if isinstance(callback, CheckpointCallback)]
    return bool(callbacks[-1].load_options.get('strict', True)) if callbacks else True


def open_checkpoint(path: Path, strict: bool) -> Resume:
    """The checkpoint to resume from."""
    from vq.cli import beginnings
    from vq.io import checkpoints, tensorfile
    from vq.runners.resuming import Resume

    try:
        return Resume(path, checkpoints.load(path, rank=int(os.environ.get('RANK', '0') or 0)), strict)
    except tensorfile.Damaged as error:
        raise UserError(error.message, beginnings.older_than(path)) from error
