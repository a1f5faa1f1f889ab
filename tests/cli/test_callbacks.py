"""Callbacks of configs: defaults, names, order, positions; and lists of older configs, with step settings of the optimizer."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.shipped import FOLDER, composed, entries
from vq.assembly.compose import checked, compose
from vq.core.config import PyConfig
from vq.core.errors import ConfigError
from vq.core.parts import NamedParts
from vq.core.phases import BUILT_IN, DEFAULT_PHASE, PHASES, RUNNERS, STEP_SETTINGS
from vq.interfaces import Callback
from vq.registries import VQCallbackRegistry, VQRunnerRegistry

Compose = Callable[..., PyConfig]
LENIENT = '.trainer.callbacks[-1].load_state_dict'


@VQCallbackRegistry.register_()
class OfATestCallback(Callback):
    """A user's callback without a phase."""

    def __init__(self, interval: int = 1, clip: float = 1.0) -> None:
        self.interval, self.clip = interval, clip


@VQCallbackRegistry.register_()
class EarlyOfATestCallback(OfATestCallback):
    phase = 'anneal'


@VQCallbackRegistry.register_()
class LostOfATestCallback(OfATestCallback):
    phase = 'annael'


@pytest.fixture
def make(tmp_path: Path) -> Compose:
    """Compose a file based on ``base.py``, whose trainer has the given callbacks."""

    def compose_upon(base: str, text: str = '', overrides: dict[str, Any] | None = None, **settings: Any) -> PyConfig:
        optimizers = "optimizers=dict(tokenizer=dict(type='AdamW', lr=1.0), discriminator=dict(type='SGD'))"
        (tmp_path / 'base.py').write_text(f"trainer = dict(type='Trainer', {optimizers}, {base})\n")
        text = textwrap.dedent(text)
        (tmp_path / 'leaf.py').write_text(text if '_export_' in text else f"_base_ = ['base.py']\n{text}")
        return compose(str(tmp_path / 'leaf.py'), {}, overrides or {}, **settings)

    return compose_upon


def names(config: PyConfig) -> list[str]:
    return [*config.trainer.callbacks.keys()]


# defaults, names, order

DEFAULTS = ['log', 'backends', 'progress', 'git', 'preemption', 'checkpoint']


def test_a_trainer_that_says_nothing_has_the_defaults(make: Compose) -> None:
    config = make('')
    assert names(config) == DEFAULTS
    assert config.trainer.callbacks.checkpoint == {'type': 'CheckpointCallback'}


def test_what_a_config_says_is_merged_over_the_defaults_and_sorted_by_phase(make: Compose) -> None:
    config = make(
        """callbacks=dict(
            checkpoint=dict(interval=7), evaluate=dict(type='EvalCallback'), mine=dict(type='OfATestCallback'),
            ema=dict(type='EMACallback'), log=dict(interval=3), second=dict(type='AnnealCallback'), git=None,
            first=dict(type='AnnealCallback'), early=dict(type='EarlyOfATestCallback'), unknown=dict(type='NoSuch'),
        )"""
    )
    assert names(config) == [
        *('second', 'first', 'early', 'ema', 'log', 'backends', 'progress'),
        *('preemption', 'mine', 'git', 'unknown', 'evaluate', 'checkpoint'),
    ]  # within a phase as written; what is switched off has none
    callbacks = config.trainer.callbacks
    assert callbacks.log == {'type': 'LogCallback', 'interval': 3}
    assert callbacks.checkpoint == {'type': 'CheckpointCallback', 'interval': 7}
    assert callbacks.git is None and callbacks[-1] is callbacks.checkpoint


def test_the_tiny_form_is_merged_by_name(make: Compose) -> None:
    text = "tiny = dict(trainer=dict(callbacks=dict(log=dict(interval=2), ema=None, mine=dict(type='OfATestCallback'))))"
    base = "callbacks=dict(log=dict(interval=50), ema=dict(type='EMACallback'), alarm=dict(type='CodebookAlarmCallback'))"
    full, tiny = make(base, text, tiny=False), make(base, text, tiny=True)
    assert full.trainer.callbacks.log.interval == 50 and 'mine' not in full.trainer.callbacks
    assert tiny.trainer.callbacks.log.interval == 2 and tiny.trainer.callbacks.ema is None
    assert [callback.type for callback in tiny.trainer.callbacks] == [
        *('LogCallback', 'BackendsCallback', 'ProgressCallback', 'GitCallback', 'CodebookAlarmCallback'),
        *('PreemptionCallback', 'OfATestCallback', 'CheckpointCallback'),
    ]


def test_a_composed_config_composes_to_itself(make: Compose, tmp_path: Path) -> None:
    for base in (
        "callbacks=dict(git=None, mine=dict(type='OfATestCallback'), log=dict(interval=3))",
        "callbacks=[dict(type='OptimizeCallback', clip=1.0), dict(type='EMACallback')]",
        'callbacks=[]',
        '',
    ):
        config = make(base)
        (tmp_path / 'again.py').write_text(config.dumps())
        again = compose(str(tmp_path / 'again.py'), {}, {})
        assert again == config and again.dumps() == config.dumps()


def test_overrides_count_in_the_final_order_also_behind_one_that_adds(make: Compose) -> None:
    config = make(
        "callbacks=dict(checkpoint=dict(interval=7), ema=dict(type='EMACallback'))",
        overrides={
            '.trainer.callbacks.mine': dict(type='OfATestCallback'),
            '.trainer.callbacks[-1].interval': 5,
            '.trainer.callbacks[-2].interval': 6,
            '.trainer.callbacks.log.interval': 4,
            '.trainer.callbacks.git': None,
            '.trainer.callbacks[0].decay': 0.5,
        },
    )
    callbacks = config.trainer.callbacks
    assert (callbacks.checkpoint.interval, callbacks.mine.interval, callbacks.log.interval) == (5, 6, 4)
    assert callbacks.ema.decay == 0.5 and callbacks.git is None


def test_a_whole_set_by_override_is_merged_over_the_defaults_too_and_a_list_is_not(make: Compose) -> None:
    some = make('', overrides={'.trainer.callbacks': dict(ema=dict(type='EMACallback'), git=None)})
    assert names(some) == ['ema', 'log', 'backends', 'progress', 'preemption', 'git', 'checkpoint']
    assert make('', overrides={'.trainer.callbacks': [dict(type='EMACallback')]}).trainer.callbacks == [
        {'type': 'EMACallback'}
    ]


def test_a_phase_that_does_not_exist_is_refused(make: Compose) -> None:
    with pytest.raises(ConfigError, match="declares the phase 'annael'; did you mean 'anneal'"):
        make("callbacks=dict(lost=dict(type='LostOfATestCallback'))")


def test_runners_without_defaults_are_sorted_and_get_nothing(make: Compose) -> None:
    text = "validator = dict(type='Validator', callbacks=dict(b=dict(type='EvalCallback'), a=dict(type='SamplesCallback')))"
    assert list(make('', text).validator.callbacks.keys()) == ['a', 'b']
    assert 'callbacks' not in make('', "validator = dict(type='Validator')").validator


def test_a_users_trainer_has_the_defaults_of_its_class(make: Compose) -> None:
    from vq.runners.trainer import Trainer

    kind = type('TrainerOfATest', (Trainer,), {})
    other = type('OtherTrainerOfATest', (Trainer,), {'default_callbacks': {'mine': {'type': 'OfATestCallback'}}})
    VQRunnerRegistry.register_()(kind)
    VQRunnerRegistry.register_()(other)
    try:
        for name, expected in (('TrainerOfATest', DEFAULTS), ('OtherTrainerOfATest', ['mine'])):
            assert names(make('', f"trainer = dict(type='{name}')")) == expected
    finally:
        for name in ('TrainerOfATest', 'OtherTrainerOfATest'):
            del VQRunnerRegistry[name]


def test_the_table_says_what_the_classes_declare() -> None:
    ours = {name: item for name, item in _callbacks().items() if item.__module__.startswith('vq.')}
    assert {name: item.phase for name, item in ours.items()} == {name: phase for name, (_, phase) in BUILT_IN.items()}
    assert {phase for _, phase in BUILT_IN.values()} | {DEFAULT_PHASE} == set(PHASES)
    VQRunnerRegistry.names()
    runners = {name: item for registry in VQRunnerRegistry.tree() for name, item in registry.data.items()}
    ours = {name: item for name, item in runners.items() if item.__module__.startswith('vq.')}
    assert {name: dict(getattr(item, 'default_callbacks', {})) for name, item in ours.items()} == RUNNERS


def _callbacks() -> Mapping[str, Any]:
    VQCallbackRegistry.names()
    return VQCallbackRegistry.data


@pytest.mark.slow
def test_composing_built_in_callbacks_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / 'mine.py').write_text("trainer = dict(type='Trainer', callbacks=dict(ema=dict(type='EMACallback')))")
    code = 'import sys; from vq.assembly.compose import compose; print(compose("mine.py", {}, {}).trainer.callbacks)'
    done = subprocess.run(
        [sys.executable, '-c', f'{code}; print("torch" in sys.modules)'], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == 'False' and "'checkpoint'" in done.stdout, done.stderr


# users' files


def test_a_users_file_changes_named_parts_as_it_changed_the_list(make: Compose, tmp_path: Path) -> None:
    text = """
    from vq.core import PyConfig

    _export_ = PyConfig.load('base.py')
    callbacks = _export_.trainer.callbacks
    for callback in callbacks:
        callback.interval = 5
    callbacks.insert(0, dict(type='OfATestCallback'))
    callbacks.append(dict(type='EarlyOfATestCallback'))
    """
    parts = "log=dict(type='LogCallback'), checkpoint=dict(type='CheckpointCallback')"
    named = make(f'callbacks=dict({parts})', text)
    assert names(named) == ['early_of_a_test', 'log', 'backends', 'progress', 'git', 'preemption', 'of_a_test', 'checkpoint']
    assert named.trainer.callbacks.log.interval == named.trainer.callbacks.checkpoint.interval == 5
    listed = make("callbacks=[dict(type='LogCallback'), dict(type='CheckpointCallback')]", text)
    assert [(part.type, part.get('interval')) for part in listed.trainer.callbacks] == [
        *(('OfATestCallback', None), ('LogCallback', 5)),
        *(('CheckpointCallback', 5), ('EarlyOfATestCallback', None)),
    ]


@pytest.mark.parametrize('entry', [name for name in entries() if 'trainer' in composed(name)])
def test_the_last_callback_of_every_entry_is_the_checkpoint(entry: str, tmp_path: Path) -> None:
    """The published override works on the entry itself, and with callbacks of a user's file and of the command line."""
    lenient = {LENIENT: dict(strict=False)}
    (tmp_path / 'mine.py').write_text(
        textwrap.dedent(f"""
        from vq.core import PyConfig

        _export_ = PyConfig.load({str(FOLDER / entry)!r})
        _export_.trainer.callbacks.insert(0, dict(type='OfATestCallback'))
        """)
    )
    found = [compose(str(FOLDER / entry), {}, lenient, tiny=tiny) for tiny in (False, True)]
    found += [compose(str(tmp_path / 'mine.py'), {}, lenient)]
    if isinstance(found[0].trainer.callbacks, NamedParts):
        more = {'.trainer.callbacks.mine': dict(type='OfATestCallback'), **lenient}
        found += [compose(str(FOLDER / entry), {}, more)]
    for config in found:
        last = config.trainer.callbacks[-1]
        assert last.type == 'CheckpointCallback' and last.load_state_dict == {'strict': False}
        assert sum('load_state_dict' in callback for callback in config.trainer.callbacks if callback) == 1


# lists, and settings of the step in them


def test_a_list_stays_itself_and_settings_of_the_step_move(make: Compose, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, 'vq')
    logging.getLogger('vq').propagate = True
    config = make(
        """callbacks=[
            dict(type='CheckpointCallback'),
            dict(type='OptimizeCallback', optimizer='tokenizer', clip=2.0, schedule=dict(type='LinearSchedule', warmup=3)),
            dict(type='VQCallbackRegistry.OptimizeCallback', optimizer='discriminator', scale_lr='sqrt', base_batch=8),
            dict(type='EMACallback'),
        ]"""
    )
    assert config.trainer.callbacks == [{'type': 'CheckpointCallback'}, None, None, {'type': 'EMACallback'}]
    assert config.trainer.optimizers == {
        'tokenizer': {'type': 'AdamW', 'lr': 1.0, 'clip': 2.0, 'schedule': {'type': 'LinearSchedule', 'warmup': 3}},
        'discriminator': {'type': 'SGD', 'scale_lr': 'sqrt', 'base_batch': 8},
    }
    (record,) = {id(record): record for record in caplog.records}.values()  # a handler of an earlier test may hear it too
    for path in ('tokenizer.clip', 'tokenizer.schedule', 'discriminator.scale_lr', 'discriminator.base_batch'):
        assert f'.trainer.optimizers.{path}' in record.getMessage()


def test_one_callback_for_all_optimizers_and_one_among_names(make: Compose) -> None:
    for base in (
        "callbacks=[dict(type='OptimizeCallback', clip=2.0)]",
        "callbacks=dict(optimize=dict(type='OptimizeCallback', clip=2.0))",
    ):
        config = make(base)
        assert [optimizer.clip for optimizer in config.trainer.optimizers.values()] == [2.0, 2.0]
        assert 'optimize' not in config.trainer.callbacks
    text = "_export_ = PyConfig.load('base.py')\n_export_.trainer.callbacks.insert(0, dict(type='OptimizeCallback', clip=3.0))"
    assert make('callbacks=dict()', f'from vq.core import PyConfig\n{text}').trainer.optimizers.tokenizer.clip == 3.0


def test_a_list_that_restates_the_step_replaces_what_the_optimizers_say(make: Compose) -> None:
    """As when these settings were in the list, which was replaced."""
    steps = "clip=1.0, schedule=dict(type='CosineSchedule', warmup=50, final=0.02)"
    config = make(
        'callbacks=dict()',
        f"""
        trainer = dict(optimizers=dict(tokenizer=dict({steps}), discriminator=dict({steps})), callbacks=[
            dict(type='OptimizeCallback', optimizer='tokenizer', schedule=dict(type='ConstantSchedule'))])
        """,
    )
    assert config.trainer.optimizers.tokenizer == {'type': 'AdamW', 'lr': 1.0, 'schedule': {'type': 'ConstantSchedule'}}
    assert config.trainer.optimizers.discriminator.clip == 1.0


def test_a_config_of_a_run_written_before_composes_in_both_forms(make: Compose) -> None:
    """Its tiny form still has a list with step settings; settings of the full form must not be mixed in."""
    base = "callbacks=[dict(type='OptimizeCallback', clip=1.0, schedule=dict(type='CosineSchedule', warmup=50, final=0.1))]"
    text = (
        "tiny = dict(trainer=dict(callbacks=[dict(type='OptimizeCallback', schedule=dict(type='CosineSchedule', warmup=2))]))"
    )
    expected = {'type': 'AdamW', 'lr': 1.0, 'schedule': {'type': 'CosineSchedule', 'warmup': 2}}
    assert make(base, text, tiny=True).trainer.optimizers.tokenizer == expected
    saved = make(base, text, tiny=False)
    assert saved.trainer.optimizers.tokenizer.clip == 1.0
    saved.update(saved.tiny)
    assert checked_optimizers(saved) == expected


def checked_optimizers(config: PyConfig) -> Any:
    from vq.assembly.callbacks import settle_callbacks

    settle_callbacks(config)
    return config.trainer.optimizers.tokenizer


@pytest.mark.parametrize(
    ('callback', 'message'),
    [
        ("optimizer='generator'", r"names the optimizer 'generator'; there are \['discriminator', 'tokenizer'\]"),
        ('clp=1.0', "OptimizeCallback has no parameter 'clp'; did you mean 'clip'"),
        ("optimizer='tokenizer'), dict(type='OptimizeCallback'", "a second OptimizeCallback steps 'tokenizer'"),
    ],
)
def test_settings_of_the_step_that_cannot_be_read(make: Compose, callback: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make(f"callbacks=[dict(type='OptimizeCallback', {callback})]")
    assert error.value.hint


LIST = "callbacks=[dict(type='OptimizeCallback', clip=1.0), dict(type='EMACallback'), dict(type='LogCallback')]"
NAMED = "callbacks=dict(ema=dict(type='EMACallback'), mine=dict(type='OfATestCallback'))"


@pytest.mark.parametrize('base', [LIST, NAMED])
@pytest.mark.parametrize(
    ('path', 'now'),
    [
        ('.trainer.callbacks[0].schedule.warmup', '.trainer.optimizers.tokenizer.schedule.warmup'),
        ('.trainer.callbacks[0].clip', '.trainer.optimizers.discriminator.clip'),
        ('.trainer.callbacks[0].scale_lr', '.trainer.optimizers.tokenizer.scale_lr'),
        ('.trainer.callbacks[0].optimizer', '.trainer.optimizers.tokenizer.clip'),
        ('.trainer.callbacks[-1].schedule.warmup', '.trainer.optimizers.tokenizer.schedule.warmup'),
    ],
)
def test_an_override_where_the_step_stood_names_the_new_path(make: Compose, base: str, path: str, now: str) -> None:
    with pytest.raises(ConfigError, match='the trainer steps') as error:
        make(base, overrides={path: 0})
    assert now in error.value.hint


def test_what_is_no_setting_of_the_step_can_be_overridden(make: Compose) -> None:
    config = make(LIST, overrides={'.trainer.callbacks[1].decay': 0.5, '.trainer.callbacks[2].interval': 3})
    assert config.trainer.callbacks == [None, {'type': 'EMACallback', 'decay': 0.5}, {'type': 'LogCallback', 'interval': 3}]
    named = make(NAMED, overrides={'.trainer.callbacks.mine.clip': 0.5, '.trainer.callbacks.mine.interval': 3})
    assert named.trainer.callbacks.mine == {'type': 'OfATestCallback', 'clip': 0.5, 'interval': 3}
    annealed = make(
        "callbacks=dict(a=dict(type='AnnealCallback', schedule=dict(type='LinearSchedule')))",
        overrides={'.trainer.callbacks.a.schedule.warmup': 3},
    )
    assert annealed.trainer.callbacks.a.schedule.warmup == 3


@pytest.mark.parametrize('key', [*STEP_SETTINGS, 'optimizer'])
def test_a_file_that_gives_a_callback_a_setting_of_the_step(key: str) -> None:
    config = composed('digits/vq_plain.py')
    config.trainer.callbacks = dict(ema=dict(type='EMACallback', **{key: 1}))
    with pytest.raises(ConfigError, match=rf"trainer\.callbacks\.ema: EMACallback has no parameter '{key}'") as error:
        checked(config, 'trainer')
    assert '.trainer.optimizers.NAME.' in error.value.hint


def test_the_retired_type_says_so_wherever_it_is_named() -> None:
    with pytest.raises(ConfigError, match="no type 'OptimizeCallback' any more") as error:
        VQCallbackRegistry.build(dict(type='OptimizeCallback'))
    assert '.trainer.optimizers.NAME.clip' in error.value.hint
