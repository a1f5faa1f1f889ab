"""Evaluation during training has the figures of vq.val, and does not change training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ranks import GlooPool
from tests.runners.support import assert_same, build_trainer, everything, quiet
from vq.core.errors import ConfigError
from vq.data.datasets.synthetic import SyntheticDataset
from vq.interfaces import Strategy, Task
from vq.registries import VQRunnerRegistry
from vq.runners.journal import read

SAVE = dict(type='CheckpointCallback', interval=2)
AVERAGE = dict(type='EMACallback', decay=0.9)


def trainer_of(folder: Path, *callbacks: dict[str, Any], **options: Any) -> Any:
    trainer = build_trainer(folder, dict(iters=4, **options), quiet(AVERAGE, *callbacks))
    dataset = dict(type='DigitsDataset', split='validation', image_size=32)

    def validation(model: Task, strategy: Strategy) -> Any:
        parts = dict(model=model, strategy=strategy, dataset=dataset, dataloader=dict(batch_size=50, num_workers=0))
        return VQRunnerRegistry.build(dict(type='Validator', metrics=dict(psnr=dict(type='PSNRMetric')), **parts), 'validator')

    trainer.context.validation = validation
    return trainer


@pytest.mark.slow
def test_training_does_not_notice(tmp_path: Path) -> None:
    for name, callbacks in (('with', [dict(type='EvalCallback', interval=1), SAVE]), ('without', [SAVE])):
        trainer_of(tmp_path / name, *callbacks).run()
    found, expected = (everything(tmp_path / name / 'run/checkpoints/iter_4') for name in ('with', 'without'))
    for state in (found, expected):
        for part in ('training', 'rank_0.pt'):
            state[part]['callbacks'].pop('evaluate', None)
    assert_same(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize('weights', ['auto', 'model', 'ema'])
def test_says_what_the_validator_says_of_the_checkpoint(tmp_path: Path, weights: str) -> None:
    from vq.assembly.building import load_weights

    trainer = trainer_of(tmp_path, dict(type='EvalCallback', interval=2, weights=weights, limit=70), SAVE)
    trainer.run()
    lines = read(tmp_path / 'run/log.jsonl', 'eval')
    assert [line['step'] for line in lines] == [2, 4] and [line['samples'] for line in lines] == [70, 70]
    fresh = build_trainer(tmp_path / 'fresh')
    load_weights(fresh.model, [str(tmp_path / 'run/checkpoints/iter_4')], weights, fresh.context)
    validator = trainer.context.validation(fresh.model, fresh.strategy)
    validator.bind(fresh.context)
    validator.limit, validator.spaced = 70, True
    expected = validator.run()
    assert lines[-1]['psnr'] == pytest.approx(expected['psnr'], abs=1e-9)
    other = {'auto': 'model', 'model': 'ema', 'ema': 'model'}[weights]
    load_weights(fresh.model, [str(tmp_path / 'run/checkpoints/iter_4')], other, fresh.context)
    assert validator.run()['psnr'] != pytest.approx(lines[-1]['psnr'], abs=1e-6), 'both weights would pass this test'


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_by_its_figures(tmp_path: Path) -> None:
    save = dict(type='CheckpointCallback', interval=1, keep_last=1, keep_best=1, best_metric='psnr')
    trainer_of(tmp_path, dict(type='EvalCallback', interval=1), save).run()
    figures = {line['step']: line['psnr'] for line in read(tmp_path / 'run/log.jsonl', 'eval')}
    best = max(figures, key=lambda step: figures[step])
    kept = {int(path.name.removeprefix('iter_')) for path in (tmp_path / 'run/checkpoints').glob('iter_*')}
    assert kept == {best, 4}
    noted = json.loads((tmp_path / f'run/checkpoints/iter_{best}/metrics.json').read_text())
    assert figures[best] in noted.values() or figures[best] in noted.get('metrics', {}).values()


def evaluate_on_a_rank(folder: str) -> tuple[float, int]:
    trainer = trainer_of(Path(folder), dict(type='EvalCallback', interval=4), strategy='ddp')
    trainer.run()
    _, figures = trainer.measured
    return figures['psnr'], int(figures['samples'])


def test_two_ranks_share_one_pass(tmp_path: Path, gloo_pool: GlooPool) -> None:
    first, second = gloo_pool.run(evaluate_on_a_rank, str(tmp_path))
    assert first == second and first[1] == 180


def test_what_cannot_be_evaluated_is_said_at_the_start(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path / 'one', {}, quiet(dict(type='EvalCallback')))
    with pytest.raises(ConfigError, match='validator'):
        trainer.run()
    with pytest.raises(ConfigError, match='moving average'):
        build_trainer(tmp_path / 'two', {}, quiet(dict(type='EvalCallback', weights='ema'))).setup()


@pytest.mark.slow
def test_losses_alone_are_those_of_an_evaluation_and_nothing_is_drawn(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, dict(type='EvalCallback', interval=2), dict(type='ValidateCallback', interval=1), SAVE)
    asked: list[tuple[str, ...]] = []
    model, step = trainer.model, trainer.model.validation_step
    model.draws = ('generated',)

    def remembered(batch: Any) -> Any:
        asked.append(model.draws)
        return step(batch)

    model.validation_step = remembered
    trainer.run()
    lines, evaluated = (read(tmp_path / 'run/log.jsonl', kind) for kind in ('validation', 'eval'))
    assert [line['step'] for line in lines] == [1, 2, 3, 4] and [line['step'] for line in evaluated] == [2, 4]
    of_same_steps = [line for line in lines if line['step'] in (2, 4)]
    for line, other in zip(of_same_steps, evaluated, strict=True):
        losses = {name: value for name, value in other.items() if name.startswith('loss/')}
        assert losses and line == {'step': line['step'], 'kind': 'validation', **losses}
    assert set(asked) == {(), ('generated',)} and model.draws == ('generated',)
    assert trainer.measured == (4, {name: value for name, value in evaluated[-1].items() if name not in ('step', 'kind')})


def test_a_limit_takes_as_many_of_each_class_of_a_sorted_split(tmp_path: Path) -> None:
    """Of 50 images in order of 10 classes, 20: the first 20 would be of four classes."""
    trainer = trainer_of(tmp_path, dict(type='EvalCallback', interval=4, limit=20))
    ordered = SyntheticDataset('validation', image_size=32, count=50)
    seen: list[str] = []
    step = trainer.model.validation_step

    def remembered(batch: Any) -> Any:
        seen.extend(batch.id)
        return step(batch)

    validation = trainer.context.validation

    def of_ordered(model: Task, strategy: Strategy) -> Any:
        found = validation(model, strategy)
        found.dataset = ordered
        return found

    trainer.context.validation, trainer.model.validation_step = of_ordered, remembered
    trainer.run()
    places = [int(name.rpartition('/')[2]) for name in seen]
    assert len(places) == len(set(places)) == 20
    assert [sum(place // 5 == kind for place in places) for kind in range(10)] == [2] * 10
    assert trainer.measured[1]['samples'] == 20
