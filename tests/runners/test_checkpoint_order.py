"""The checkpoint callback is last in the list, but writes before pictures and evaluation, and records figures afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ranks import GlooPool
from tests.runners.support import assert_same, build_trainer, everything, logged, quiet
from tests.runners.test_evaluate_callback import AVERAGE, trainer_of
from vq.interfaces import Callback
from vq.io import checkpoints
from vq.io.history import list_complete
from vq.runners.resuming import Resume

SAVE = dict(type='CheckpointCallback', interval=2)
EVALUATE = dict(type='EvalCallback', interval=2)
LOG = dict(type='LogCallback', interval=3)
ALARM = dict(type='CodebookAlarmCallback', interval=2)
PICTURES = dict(type='ImageGridCallback', interval=2)


class Killed(RuntimeError):
    """Simulates a kill."""


def steps_of(trainer: Any) -> list[int]:
    return [step for step, _ in list_complete(trainer.work_dir / 'checkpoints')]


def kill_in(trainer: Any, callback: str, hook: str, step: int) -> None:
    """End the run at the start of this hook after this step."""
    part = trainer.callbacks[callback]
    run = getattr(part, hook)

    def killed() -> None:
        if trainer.step == step:
            raise Killed
        run()

    setattr(part, hook, killed)


@pytest.mark.slow
def test_the_checkpoint_is_written_before_pictures_and_evaluation(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, PICTURES, EVALUATE, SAVE)
    seen: dict[str, list[int]] = {}

    def watch(part: Any, hook: str, name: str) -> None:
        run = getattr(part, hook)
        setattr(part, hook, lambda *given: (seen.setdefault(name, steps_of(trainer)), run(*given))[1])

    watch(trainer.callbacks['pictures'], 'inspect', 'pictures')
    watch(trainer.callbacks['evaluate'], 'evaluate', 'evaluation')
    trainer.run()
    assert list(trainer.callbacks)[-1] == 'checkpoint'
    assert seen['evaluation'] == [2]  # the one of the very step
    assert seen['pictures'] == []  # of step 1, at which nothing is due
    noted = json.loads((tmp_path / 'run/checkpoints/iter_2/metrics.json').read_text())
    assert noted['psnr'] == next(line['psnr'] for line in logged(tmp_path / 'run') if line['kind'] == 'eval')


@pytest.mark.slow
@pytest.mark.parametrize('position', ['last', 'first'])
def test_what_changes_the_state_of_a_run_comes_before_the_checkpoint_wherever_that_stands(
    tmp_path: Path, position: str
) -> None:
    """Log and alarm reset their sums at intervals. With a checkpoint written before, these sums would count twice."""
    parts = [AVERAGE, LOG, ALARM]
    parts = [*parts, SAVE] if position == 'last' else [SAVE, *parts]
    straight, first, second = (build_trainer(tmp_path / name, dict(iters=6), quiet(*parts)) for name in ('a', 'b', 'b'))
    straight.run()
    kill_in(first, 'log', 'after_step', 3)
    with pytest.raises(Killed):
        first.run()
    path = first.work_dir / 'checkpoints' / 'iter_2'
    second.resumed = Resume(path, checkpoints.load(path, rank=0))
    second.run()
    assert_same(everything(straight.work_dir / 'checkpoints/iter_6'), everything(second.work_dir / 'checkpoints/iter_6'))
    assert logged(straight.work_dir) == logged(second.work_dir)


@pytest.mark.slow
@pytest.mark.parametrize('step', [2, 4])
def test_a_run_killed_in_its_evaluation_makes_up_for_it(tmp_path: Path, step: int) -> None:
    """The checkpoint exists without its figures: a resumed run evaluates first, even after the last step."""
    parts = (LOG, PICTURES, EVALUATE, SAVE)
    straight, first, second = (trainer_of(tmp_path / name, *parts) for name in ('straight', 'broken', 'broken'))
    straight.run()
    kill_in(first, 'evaluate', 'inspect', step)
    with pytest.raises(Killed):
        first.run()
    path = first.work_dir / 'checkpoints' / f'iter_{step}'
    assert steps_of(first)[-1] == step and not (path / 'metrics.json').exists()
    second.resumed = Resume(path, checkpoints.load(path, rank=0))
    second.run()
    figures = [{**line, 'seconds': 0} for line in logged(straight.work_dir)]
    assert figures == [{**line, 'seconds': 0} for line in logged(second.work_dir)]
    assert_same(everything(straight.work_dir / 'checkpoints/iter_4'), everything(second.work_dir / 'checkpoints/iter_4'))
    for name in ('iter_2', 'iter_4'):
        ours, theirs = (
            json.loads((trainer.work_dir / 'checkpoints' / name / 'metrics.json').read_text())
            for trainer in (second, straight)
        )
        assert {**ours, 'seconds': 0} == {**theirs, 'seconds': 0}


@pytest.mark.slow
def test_a_run_that_was_evaluated_is_not_evaluated_again(tmp_path: Path) -> None:
    first, second = (trainer_of(tmp_path, EVALUATE, SAVE) for _ in range(2))
    first._length = (2, None, None)
    first.run()
    path = first.work_dir / 'checkpoints' / 'iter_2'
    second.resumed = Resume(path, checkpoints.load(path, rank=0))
    second.run()
    assert [line['step'] for line in logged(second.work_dir) if line['kind'] == 'eval'] == [2, 4]


def resume_on_a_rank(folder: str) -> list[int]:
    first, second = (trainer_of(Path(folder), EVALUATE, SAVE, strategy='ddp') for _ in range(2))
    kill_in(first, 'evaluate', 'inspect', 2)
    with pytest.raises(Killed):
        first.run()
    path = first.work_dir / 'checkpoints' / 'iter_2'
    evaluated: list[int] = []
    for trainer in (second, trainer_of(Path(folder), EVALUATE, SAVE, strategy='ddp')):  # one has to make up for it
        evaluate = trainer.callbacks['evaluate'].evaluate
        trainer.callbacks['evaluate'].evaluate = lambda trainer=trainer, run=evaluate: (evaluated.append(trainer.step), run())[
            1
        ]
        trainer.resumed = Resume(path, checkpoints.load(path))
        trainer.run()
        path = trainer.work_dir / 'checkpoints' / 'iter_4'
    return evaluated


@pytest.mark.slow
def test_ranks_agree_on_what_was_not_evaluated(tmp_path: Path, gloo_pool: GlooPool) -> None:
    """Only the main rank has a log to read."""
    assert gloo_pool.run(resume_on_a_rank, str(tmp_path)) == [[2, 4], [2, 4]]


class Stop(Callback):
    """Stops the run after step 2."""

    def after_step(self) -> None:
        self.runner.stop_requested = self.runner.step == 2


@pytest.mark.slow
def test_who_is_asked_to_stop_saves_first_and_leaves_the_evaluation_to_the_next_start(tmp_path: Path) -> None:
    first, second = (trainer_of(tmp_path, EVALUATE, {**SAVE, 'interval': 100}) for _ in range(2))
    first.callbacks['stop'] = Stop()  # behind the checkpoint, which sees it all the same
    first.run()
    assert steps_of(first) == [2] and not first.journal.path.exists()
    path = first.work_dir / 'checkpoints' / 'iter_2'
    second.resumed = Resume(path, checkpoints.load(path, rank=0))
    second.run()
    assert [line['step'] for line in logged(second.work_dir) if line['kind'] == 'eval'] == [2, 4]


def test_old_checkpoints_go_when_the_figures_of_the_step_are_there(tmp_path: Path) -> None:
    """The best checkpoint is kept, although it was written before its figures were known."""
    save = dict(type='CheckpointCallback', interval=1, keep_last=1, keep_best=1, best_metric='psnr')
    trainer = trainer_of(tmp_path, dict(type='EvalCallback', interval=1), save)
    best = {1: 5.0, 2: 9.0, 3: 1.0, 4: 2.0}
    trainer.callbacks['evaluate'].evaluate = lambda: {'psnr': best[trainer.step]}
    trainer.run()
    assert steps_of(trainer) == [2, 4]
