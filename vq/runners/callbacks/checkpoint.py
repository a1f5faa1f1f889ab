"""Checkpoints: every ``interval`` steps, at the end, and on a request to stop."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from vq.core import collectives
from vq.core.errors import ConfigError, UserError
from vq.interfaces import Callback, Pretrained
from vq.io import checkpoints
from vq.io.checkpoints import Checkpoint, Retention
from vq.io.digest import file_digest
from vq.io.history import note_metrics
from vq.io.ranks import run_on_all_ranks
from vq.io.sharded import gathered
from vq.registries import VQCallbackRegistry
from vq.runners.averages import averages_of
from vq.runners.protocol import TrainerLike
from vq.tasks.spec import spec_of

logger = logging.getLogger('vq')


def check_space(folder: Path, needed: int) -> None:
    """Raise if the disk of ``folder`` cannot hold two checkpoints: the old one is deleted after the new one is complete."""
    free = shutil.disk_usage(folder).free
    if free < 2 * needed:
        raise UserError(
            f'{folder} has {free / 2**30:.1f} GiB free, and two checkpoints need about {2 * needed / 2**30:.1f} GiB',
            'Free space, choose another place with --work-dir, or keep fewer checkpoints.',
        )


@VQCallbackRegistry.register_()
class CheckpointCallback(Callback[TrainerLike]):
    """Writes ``checkpoints/iter_N`` and removes old ones.

    Its phase is the last. Its ``save`` hook writes the checkpoint before any ``inspect`` hook draws pictures or evaluates, so
    a crash in those loses no training. Its ``inspect`` hook runs after theirs: it notes the figures of the evaluation in the
    checkpoint, and then removes old checkpoints.

    keep_last        number of newest checkpoints to keep; None keeps all
    keep_best        number of best checkpoints to keep, by ``best_metric`` (``best_is`` max or min) as noted by validation
    keep_every       checkpoints at multiples of this many steps are never removed
    keep_state       number of newest checkpoints that keep the state of optimizers and random generators; older ones keep
                     weights and moving average only, and cannot be resumed from. None: all keep it
    load_state_dict  how weights are loaded, in a resume and by --load-model-from: ``dict(strict=False)`` accepts a model with
                     parts that the checkpoint lacks, and a checkpoint with parts that the model lacks
    """

    phase = 'checkpoint'

    def __init__(
        self,
        interval: int = 10_000,
        keep_last: int | None = None,
        keep_best: int = 0,
        best_metric: str | None = None,
        best_is: str = 'max',
        keep_every: int | None = None,
        keep_state: int | None = None,
        load_state_dict: dict[str, Any] | None = None,
    ) -> None:
        if interval < 1:
            raise ConfigError(f'checkpoint interval is {interval}', 'Give 1 or more steps.')
        if best_is not in ('max', 'min'):
            raise ConfigError(f"best_is is '{best_is}'", "Write 'max' or 'min'.")
        self.interval = interval
        self.retention = Retention(
            keep_last=keep_last,
            keep_best=keep_best,
            best_metric=best_metric,
            best_is=best_is,  # type: ignore[arg-type]
            keep_every=keep_every,
            keep_state=keep_state,
        )
        self.load_options = dict(load_state_dict or {})

    def bind(self, runner: TrainerLike) -> None:
        super().bind(runner)
        self.folder = runner.work_dir / 'checkpoints'
        main = collectives.is_main()  # only the main rank writes the spec
        self.spec = spec_of(runner.model, runner.dataset, runner.context.preprocessing).as_json() if main else None
        files = {file for part in runner.model.modules() if isinstance(part, Pretrained) for file in part.pretrained_files()}
        self.frozen = {str(file): file_digest(file) for file in sorted(files) if not runner.context.random_weights}

    def before_run(self) -> None:
        self.written: Path | None = None  # the checkpoint of this step, until ``inspect`` has noted figures and pruned
        if self.runner.measured is not None and self.runner.resumed is not None:
            self._note(self.runner.resumed.path)  # EvalCallback has made up for an evaluation that a kill prevented

    def save(self) -> None:
        runner = self.runner
        if runner.step % self.interval and runner.step != runner.iters and not runner.stop_requested:
            return
        runner.guard.check()
        self.written = self._write(self.folder)
        if collectives.is_main():
            logger.info('checkpoint %s', self.written)

    def rehearse(self, largest: int) -> None:
        """Write a checkpoint on trial and delete it; one of more than ``largest`` bytes: check the free space."""
        size = sum(value.nbytes for value in checkpoints.model_state(self.runner.model).values())
        size *= 2 + 2 * bool(self.runner.optimizers)  # weights, moving average, and two tensors of state per weight
        work_dir = self.runner.work_dir
        run_on_all_ranks(lambda: check_space(work_dir, size) if collectives.is_main() else None, 'looking for space')
        if size > largest:
            return
        trial = work_dir / '.preflight'
        try:
            self._write(trial)
        finally:
            if collectives.is_main():
                shutil.rmtree(trial, ignore_errors=True)

    def _write(self, folder: Path) -> Path:
        runner = self.runner
        ema = next((average.shadow for average in averages_of(runner.callbacks.values())), None)
        training, shared_out = runner.state()
        checkpoint = Checkpoint(
            step=runner.step,
            model=gathered(checkpoints.model_state(runner.model)),
            ema=None if ema is None else gathered(ema),
            training=training,
            per_rank=runner.rank_state(),
            config_text=runner.context.config_text,
            spec=self.spec,
            samples_seen=runner.samples_seen,
            seed=runner.context.seed,
            frozen=self.frozen,
            extra={'command': runner.context.command} if runner.context.command else {},
        )
        return checkpoints.save(folder, checkpoint, shared_out)

    def inspect(self) -> None:
        if self.written is None:
            return
        self._note(self.written)
        self.written = None
        checkpoints.prune(self.folder, self.retention)

    def _note(self, path: Path) -> None:
        measured = self.runner.measured
        if collectives.is_main() and measured is not None and measured[0] == self.runner.step:
            note_metrics(path, measured[1])
