"""Where a training begins: at a checkpoint, at step 0, or not at all. No progress of a run is lost without a word.

``find`` only reads, on every rank. ``claim`` is for the first rank: it refuses, or changes the run's folder as the command
asks; it returns what to say in the first lines of the output. The log is never deleted: it is continued, or moved into
``NAME/old_<time>/``, where damaged checkpoints go, too.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from vq.core.errors import UserError
from vq.io import atomic, history, run_folder
from vq.io.run_folder import LOG

if TYPE_CHECKING:
    from vq.core.config import PyConfig


@dataclasses.dataclass(frozen=True)
class Beginning:
    """``checkpoint`` is None at step 0. ``resuming``: the command, or a restart, asks to go on where the run was."""

    folder: Path
    checkpoint: Path | None
    resuming: bool
    overwrite: bool

    @property
    def step(self) -> int:
        return 0 if self.checkpoint is None else history.step_of(self.checkpoint)

    @property
    def starts_over(self) -> bool:
        """Whether an earlier run is deleted."""
        return self.overwrite and self.checkpoint is None and run_folder.has_run(self.folder)


def find(folder: Path, options: argparse.Namespace, restarted: bool) -> Beginning:
    """What the options of ``vq.train`` mean for this folder. For a restart the options of the first start do not apply."""
    checkpoint = None
    if restarted or (options.auto_resume and options.load_from is None):
        newest = history.latest(folder / 'checkpoints')
        checkpoint = newest and folder / 'checkpoints' / f'iter_{history.step_of(newest)}'  # sweep gives it this name
    elif options.load_from is not None:
        checkpoint = folder / 'checkpoints' / Path(options.load_from).name
        if atomic.standing(checkpoint, history.is_complete) is None:
            raise history.not_complete(checkpoint)
    resuming = restarted or options.auto_resume or options.load_from is not None
    return Beginning(folder, checkpoint, resuming, options.overwrite and not restarted)


def check(start: Beginning) -> None:
    """Refuse to begin anew where there is a run, and to begin anew where all of its checkpoints are damaged."""
    if start.overwrite or start.checkpoint is not None or not run_folder.has_run(start.folder):
        return
    if not start.resuming:
        raise UserError(
            f'the run {start.folder} exists already',
            'Go on with --auto-resume, start over with --overwrite, or choose another NAME.',
        )
    damaged = history.list_damaged(start.folder / 'checkpoints')
    if damaged:
        raise UserError(
            f'the run {start.folder} has no intact checkpoint to go on from, so {history.step_of(damaged[0][0])} steps would '
            f'be lost: {history.describe_damaged(damaged)}',
            'Put a copy of a checkpoint back, or start over with --overwrite, which keeps the damaged ones and the log in '
            f'{start.folder}/old_<time>/.',
        )


def changes(start: Beginning, config: PyConfig, options: argparse.Namespace) -> list[str]:
    """Refuse to resume with other settings than those of the run. With ``--change``, what to say about them."""
    from vq.assembly import same_run

    place = start.checkpoint and atomic.standing(start.checkpoint, history.is_complete)
    if place is None:
        return []
    differences = same_run.find_differences(place, config, options.seed, options.trust)
    if differences is None:
        return [f'the settings of {start.checkpoint} cannot be read, so they are not compared with those of this command']
    if differences and not options.change:
        raise UserError(
            f'the run {start.folder} has other settings than this command:\n{same_run.table(differences)}',
            'Give the settings of the run (old -> new), or go on with the new ones: --change.',
        )
    return [f'from here on the run has other settings:\n{same_run.table(differences)}'] if differences else []


def claim(start: Beginning) -> list[str]:
    """Prepare the folder; returns what to say about it."""
    folder = start.folder
    if not run_folder.has_run(folder):
        return []
    atomic.sweep(folder / 'checkpoints', history.is_complete)
    if start.checkpoint is None and start.overwrite:
        kept = run_folder.start_over(folder)
        aside = f'; its log, and what was damaged, is in {kept}' if kept else ''
        return [f'the earlier run {folder} is deleted{aside}']
    room = run_folder.aside_of(folder)
    if start.checkpoint is None:
        if not (folder / LOG).exists():
            return []
        run_folder.set_logs_aside(folder, room)
        return [f'no checkpoint of {folder} was written yet: training begins at step 0, and the earlier log is in {room}']
    damaged = history.list_damaged(folder / 'checkpoints')
    newer = [(path, why) for path, why in damaged if history.step_of(path) > start.step]
    said = []
    if newer:
        lost = history.step_of(newer[0][0]) - start.step
        run_folder.set_aside([path for path, _ in newer], room)
        said.append(
            f'{lost} steps are lost: {history.describe_damaged(newer)}. Training goes on from {start.checkpoint}; '
            f'what is damaged, and a copy of the log, is in {room}'
        )
    older = [(path, why) for path, why in damaged if (path, why) not in newer]
    if older:
        said.append(f'no steps are lost, but checkpoints are damaged: {history.describe_damaged(older)}')
    steps = [step for step, _ in history.list_complete(folder / 'checkpoints')]
    if (newer or max(steps, default=0) > start.step) and (folder / LOG).exists():
        room.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / LOG, room / LOG)
    return said


def older_than(checkpoint: Path) -> str:
    """A hint for a checkpoint whose content is damaged: the one before it, and what going back costs."""
    step = history.step_of(checkpoint)
    before = [(known, path) for known, path in history.list_complete(checkpoint.parent) if known < step]
    if not before:
        return 'It is the oldest one of the run: put a copy of it back, or start over with --overwrite.'
    known, path = before[-1]
    return f'--load-from {path.name} in place of --auto-resume goes back {step - known} steps.'
