"""Train: ``auto_torchrun -m vq.train NAME CONFIG``."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vq.cli import arguments, restarts
from vq.cli.errors import command, leave, say
from vq.core import environment
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.runners.resuming import Resume
    from vq.runners.trainer import Trainer

EXAMPLES = """
examples:
  auto_torchrun -m vq.train digits configs/digits/vq_ema.py
  auto_torchrun -m vq.train digits configs/digits/vq_ema.py --auto-resume
  auto_torchrun --max-restarts 3 -m vq.train digits configs/digits/vq_ema.py
  auto_torchrun -m vq.train long configs/digits/vq_ema.py --override .trainer.iters:2000 .trainer.strategy.accumulate:2
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser('vq.train', 'Train the model that a config describes.')
    parser.epilog = EXAMPLES
    arguments.add_run(parser)
    arguments.add_weights(parser)
    parser.add_argument('--load-from', metavar='iter_N', help='resume from this checkpoint of the run')
    parser.add_argument(
        '--auto-resume', action='store_true', help='resume from the newest checkpoint, or start if there is none'
    )
    parser.add_argument('--overwrite', action='store_true', help='delete an earlier run of this name')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options, parent = make_parser().parse_args(argv), os.getppid()
    environment.prepare()
    from vq.assembly import building
    from vq.assembly.compose import compose
    from vq.assembly.frozen_weights import take_tokenizer
    from vq.runners.trainer import Trainer

    config = compose(options.config, options.config_options, options.override, options.autocast, trusted=options.trust)
    options.load_model_from = take_tokenizer(config, options.load_model_from)
    folder = building.runs_folder(options.work_dir) / options.name
    launch = restarts.find_launch()
    restarted = restarts.has_begun(folder, launch)  # then the options below, of the first start, do not apply
    if building.is_first_process():
        if not restarted:
            claim(folder, options.auto_resume or options.load_from is not None, options.overwrite)
            restarts.note(folder, launch, options.load_from)
        if restarted or (options.auto_resume and options.load_from is None):
            forget_lines_without_checkpoint(folder)
    trainer, context = building.open_runner('vq.train', argv, options, config, folder, 'trainer', Trainer, 'Trainer')
    building.load_weights(trainer.model, options.load_model_from, options.weights, context)
    trainer.resumed = find_resume(folder, options, trainer, restarted)
    trainer.run()
    if trainer.stop_requested:
        why = 'stopped by a signal' if os.getppid() == parent else 'stopped, because the launcher of this rank has gone,'
        message = f'{why} after step {trainer.step} of {trainer.iters}'
        hint = 'Go on with the same command and --auto-resume.'
        leave(message, hint, 1, stopped=True)  # else the launcher would restart the run
        say(message, hint)
        return 1
    return 0


def claim(folder: Path, resuming: bool, overwrite: bool) -> None:
    """Raise if the folder holds another run, or delete that run with ``overwrite``."""
    traces = [folder / 'checkpoints', folder / 'log.jsonl']
    if resuming or not any(trace.exists() for trace in traces):
        return
    if not overwrite:
        raise UserError(
            f'the run {folder} exists already',
            'Go on with --auto-resume, start over with --overwrite, or choose another NAME.',
        )
    for trace in [*traces, folder / 'val', folder / 'pictures', folder / 'tokens']:
        if trace.is_dir():
            shutil.rmtree(trace)
        else:
            trace.unlink(missing_ok=True)


def forget_lines_without_checkpoint(folder: Path) -> None:
    """Delete the log of a run that ended before its first checkpoint: the run begins again."""
    from vq.io import checkpoints

    if checkpoints.latest(folder / 'checkpoints') is None:
        (folder / 'log.jsonl').unlink(missing_ok=True)


def find_resume(folder: Path, options: argparse.Namespace, trainer: Trainer, restarted: bool) -> Resume | None:
    """The checkpoint to resume from, if any."""
    from vq.assembly import building
    from vq.io import checkpoints
    from vq.runners.callbacks.checkpoint import CheckpointCallback
    from vq.runners.resuming import Resume

    path = None
    if building.is_first_process():
        checkpoints.sweep(folder / 'checkpoints')
    if restarted:
        path = checkpoints.latest(folder / 'checkpoints')
    elif options.load_from is not None:
        path = folder / 'checkpoints' / Path(options.load_from).name
        if not checkpoints.is_complete(path):
            there = ', '.join(found.name for _, found in checkpoints.list_complete(folder / 'checkpoints')) or 'none'
            raise UserError(f'{path} is not a complete checkpoint', f'Complete ones of this run: {there}.')
    elif options.auto_resume:
        path = checkpoints.latest(folder / 'checkpoints')
    if path is None:
        return None
    callbacks = [callback for callback in trainer.callbacks.values() if isinstance(callback, CheckpointCallback)]
    strict = bool(callbacks[-1].load_options.get('strict', True)) if callbacks else True
    return Resume(path, checkpoints.load(path, rank=int(os.environ.get('RANK', '0') or 0)), strict)
