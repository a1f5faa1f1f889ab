"""The optimizer's step: its settings and their sources, and the error for a trainer without a step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runners.gan import write_gan_config
from tests.runners.support import build_trainer, quiet
from vq.assembly.building import build_runner
from vq.assembly.compose import checked, compose
from vq.core.errors import ConfigError
from vq.core.records import Losses
from vq.interfaces import Callback
from vq.registries import VQOptimizerRegistry
from vq.runners.context import RunContext
from vq.runners.optimizers import portable
from vq.runners.optimizing import StepSettings
from vq.runners.trainer import Trainer


def changed_by(trainer: Any) -> int:
    """The number of parameters that a run changes."""
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.run()
    return sum(not torch.equal(before[name], value) for name, value in trainer.model.named_parameters())


def test_pictures_alone_do_not_keep_a_trainer_from_training(tmp_path: Path) -> None:
    """In older versions a list without an OptimizeCallback trained nothing, without an error."""
    trainer = build_trainer(tmp_path, dict(iters=3), {'.trainer.callbacks': [dict(type='ImageGridCallback', interval=2)]})
    assert changed_by(trainer) == sum(value.requires_grad for value in trainer.model.parameters()) > 0


def test_a_trainer_without_an_optimizer_is_refused(tmp_path: Path) -> None:
    for optimizers in ({}, {'tokenizer': None}):
        with pytest.raises(ConfigError, match=r"optimizers are \[\], and the model has the roots \['tokenizer'\]") as error:
            build_trainer(tmp_path, None, {'.trainer.optimizers': optimizers})
        assert error.value.hint


def test_a_model_without_roots_is_refused_too() -> None:
    from vq.interfaces import Task

    class Rootless(Task):
        def roots(self) -> dict[str, torch.nn.Module]:
            return {}

    with pytest.raises(ConfigError, match='optimizers are') as error:
        Trainer(Rootless(), None, None, {}, None, iters=1)  # type: ignore[arg-type]
    assert 'nothing is trained' in error.value.hint


def test_a_model_that_is_frozen_whole_is_refused(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, None, quiet())
    trainer.model.requires_grad_(False)
    with pytest.raises(ConfigError, match='no parameter that learns'):
        trainer.run()


# settings


def built(folder: Path, **settings: Any) -> StepSettings:
    overrides = {f'.trainer.optimizers.tokenizer.{name}': value for name, value in settings.items()}
    trainer = build_trainer(folder, None, {**quiet(), **overrides})
    step: StepSettings = trainer.step_settings['tokenizer']
    return step


def test_settings_stand_beside_the_learning_rate(tmp_path: Path) -> None:
    step = built(tmp_path, clip=0.5, schedule=dict(type='LinearSchedule', final=0.5), scale_lr='sqrt', base_batch=16)
    assert (step.clip, step.scale_lr, step.base_batch, step.schedule.final) == (0.5, 'sqrt', 16, 0.5)
    assert built(tmp_path) == StepSettings()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(clip=0.0), r'trainer\.optimizers\.tokenizer: clip is 0\.0'),
        (dict(clip=math.nan), 'clip is nan'),
        (dict(base_batch=0), 'base_batch is 0'),
        (dict(scale_lr='cubic'), "scale_lr: 'cubic' is a str, and 'none' | 'linear' | 'sqrt' is needed"),
        (dict(schedule=dict(type='CosinSchedule')), "schedule: unknown type 'CosinSchedule'.*did you mean 'CosineSchedule'"),
        (dict(shedule=None), "AdamW has no parameter 'shedule'; did you mean 'schedule'"),
        (dict(beta=None), "AdamW has no parameter 'beta'; did you mean 'betas'"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        built(tmp_path, **settings)
    assert error.value.hint


def test_a_schedule_is_bound_to_the_length_of_the_run(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, dict(iters=3), quiet(schedule=dict(type='CosineSchedule', warmup=5)))
    with pytest.raises(ConfigError, match='warmup takes 5 iterations of a schedule of 3'):
        trainer.run()


@pytest.mark.parametrize(('own', 'of_strategy', 'bound'), [(None, 0.01, 0.01), (0.02, 0.01, 0.02), (None, None, None)])
def test_the_strategys_clip_is_the_default(tmp_path: Path, own: float | None, of_strategy: float | None, bound: Any) -> None:
    trainer = build_trainer(tmp_path, dict(iters=1), {**quiet(clip=own), '.trainer.strategy.clip': of_strategy})
    norms: list[float] = []
    step = trainer.strategy.step

    def watched(optimizer: Any, ok: Any) -> None:
        gradients = [value.grad for value in trainer.model.parameters() if value.grad is not None]
        norms.append(float(torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients]))))
        step(optimizer, ok)

    trainer.strategy.step = watched
    trainer.run()
    whole = float(trainer.gradient_norms['tokenizer'])
    assert whole > 0.1 and norms == [pytest.approx(whole if bound is None else bound, rel=1e-3)]


@pytest.mark.slow
def test_each_optimizer_has_its_own_settings(tmp_path: Path) -> None:
    overrides = {
        '.trainer.iters': 4,
        '.trainer.callbacks': [],
        '.trainer.optimizers.tokenizer.schedule.final': 0.25,
        '.trainer.optimizers.discriminator.scale_lr': 'linear',
    }
    config = compose(str(write_gan_config(tmp_path)), {'start': 0}, overrides, tiny=False)
    trainer = build_runner(config, 'trainer', 7)
    trainer.bind(RunContext('gan', tmp_path / 'run', seed=7))
    trainer.run()
    rates = {name: optimizer.param_groups[0]['lr'] for name, optimizer in trainer.optimizers.items()}
    ratio = trainer.batch_size / 256
    assert rates == pytest.approx({'tokenizer': 1e-3 * 0.25, 'discriminator': 1e-3 * ratio})


# factories of users, and callbacks around the step


def test_a_users_factory_has_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'my_optimizer_of_a_test.py').write_text(
        'import torch\n'
        'from vq.registries import VQOptimizerRegistry\n\n'
        '@VQOptimizerRegistry.register_("Mine")\n'
        'def mine(parameters, fused: bool, *, lr: float = 0.5, twist: int = 1) -> torch.optim.Optimizer:\n'
        '    return torch.optim.SGD(parameters, lr=lr * twist)\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'mine.py').write_text(
        "_base_ = ['tiny.py']\ncustom_imports = ['tests.runners.parts', 'my_optimizer_of_a_test']\n"
        "trainer = dict(callbacks=[], optimizers=dict(tokenizer=dict(_delete_=True, type='Mine', twist=2, clip=1.0,"
        " schedule=dict(type='LinearSchedule'))))\n"
    )
    build_trainer(tmp_path)  # writes the config that it stands upon
    try:
        config = compose('mine.py', dict(iters=2), {}, tiny=False)
        trainer = build_runner(config, 'trainer', 7)
        assert trainer.step_settings['tokenizer'].clip == 1.0
        trainer.bind(RunContext('mine', tmp_path / 'run'))
        rates: list[float] = []
        step = trainer.strategy.step
        trainer.strategy.step = lambda optimizer, ok: (rates.append(optimizer.param_groups[0]['lr']), step(optimizer, ok))
        trainer.run()
        assert rates == [0.5, 0.0]
        config.trainer.optimizers.tokenizer.twst = 3
        with pytest.raises(ConfigError, match="Mine has no parameter 'twst'; did you mean 'twist'") as error:
            checked(config, 'trainer')
        assert 'base_batch, clip, lr, scale_lr, schedule, twist' in error.value.hint
    finally:
        VQOptimizerRegistry.data.pop('Mine', None)


def test_a_trainer_from_python_takes_factories_alone_and_pairs(tmp_path: Path) -> None:
    made = build_trainer(tmp_path, dict(iters=2), quiet())
    parts = dict(model=made.model, dataset=made.dataset, dataloader=made.dataloader, strategy=made.strategy, iters=1)

    def sgd(parameters: Any, fused: bool) -> torch.optim.Optimizer:
        return portable(torch.optim.SGD(parameters, lr=1.0))

    for given, expected in ((sgd, StepSettings()), ((sgd, StepSettings(clip=0.5)), StepSettings(clip=0.5))):
        trainer = Trainer(optimizers={'tokenizer': given}, callbacks=[Order(), Order()], **parts)
        assert trainer.step_settings['tokenizer'] == expected
        assert list(trainer.callbacks) == ['order', 'order_2']
        trainer.bind(RunContext('python', tmp_path / 'python'))
        assert changed_by(trainer) > 0


class Order(Callback):
    """Records hooks in order, with the norm of the complete gradients."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.norm = 0.0

    def before_step(self) -> None:
        self.seen.append('before_step')

    def after_losses(self, name: str, losses: Losses) -> None:
        self.seen.append(f'after_losses {name}')

    def optimize(self, name: str) -> None:
        self.seen.append(f'optimize {name}')
        gradients = [value.grad for value in self.runner.model.parameters() if value.grad is not None]
        self.norm = float(torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients])))
        for gradient in gradients:
            gradient.mul_(2)

    def after_batch(self, batch: Any, outputs: Any) -> None:
        self.seen.append('after_batch')

    def after_step(self) -> None:
        self.seen.append('after_step')

    def save(self) -> None:
        self.seen.append('save')

    def inspect(self) -> None:
        self.seen.append('inspect')


def test_hooks_come_in_their_order_and_gradients_may_be_changed_before_the_norm(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, dict(iters=1, accumulate=2), quiet(clip=0.5))
    order = trainer.callbacks['order'] = Order()
    trainer.run()
    losses = ['after_losses tokenizer']
    assert order.seen == [
        *('before_step', *losses, 'after_batch', *losses, 'optimize tokenizer'),
        *('after_batch', 'after_step', 'save', 'inspect'),
    ]
    assert float(trainer.gradient_norms['tokenizer']) == pytest.approx(2 * order.norm, rel=1e-6)
