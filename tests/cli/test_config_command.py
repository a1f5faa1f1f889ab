"""``python -m vq.config``: its output, its errors, its counts."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from vq.assembly.compose import compose, digest, runner_config
from vq.assembly.counting import count_flops, count_model
from vq.cli import config as command
from vq.core.config import PyConfig
from vq.core.errors import ConfigError
from vq.core.records import Batch, Outputs
from vq.interfaces import Task

NAME = 'digits/vq_ema.py'


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    monkeypatch.delenv('DRY_RUN', raising=False)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setenv('OMP_WAIT_POLICY', 'passive')
    monkeypatch.setenv('COLUMNS', '120')


def test_the_composed_config_is_printed_as_a_config(capsys):
    assert (
        command.main(
            [NAME, '--no-check', '--override', '.trainer.iters:123', '--override', '.trainer.callbacks[-1].interval:5']
        )
        == 0
    )
    printed = PyConfig.loads(capsys.readouterr().out)
    expected = compose(NAME, {}, {})
    expected.trainer.iters = 123
    expected.trainer.callbacks[-1].interval = 5
    assert printed == expected


def test_options_reach_the_files(capsys):
    assert command.main([NAME, '--no-check', '--config-options', 'codebook_size:32', 'strategy::ddp']) == 0
    printed = PyConfig.loads(capsys.readouterr().out)
    assert printed.trainer.model.tokenizer.quantizer.codebook_size == 32 and printed.trainer.strategy.type == 'DDPStrategy'


@pytest.mark.slow
def test_the_report_counts_what_is_built(capsys):
    assert command.main([NAME]) == 0
    report = capsys.readouterr().out.partition('# composed')[2]
    (parameters, operations), encoder = (
        count_model(compose(NAME, {}, {}).trainer)[part] for part in ('model', 'tokenizer.encoder')
    )
    assert 'checked: trainer, validator' in report
    assert f'{parameters:,}' in report and f'{operations / 1e9:.4f}' in report and f'{encoder[0]:,}' in report


def test_diff_prints_what_differs_and_nothing_else(capsys, write_other):
    assert (
        command.main([NAME, '--diff', write_other("_base_ = ['digits/vq_ema.py']\n_override_ = {'.trainer.iters': 5}")]) == 0
    )
    lines = [
        line.strip() for line in capsys.readouterr().out.splitlines() if line[0] in '+-' and line[:3] not in ('+++', '---')
    ]
    assert lines == ['-    iters=5,', '+    iters=700,']
    assert command.main([NAME, '--diff', NAME]) == 0
    assert capsys.readouterr().out == 'the two configs are equal\n'


@pytest.fixture
def write_other(tmp_path):
    def write(text: str) -> str:
        (tmp_path / 'other.py').write_text(text)
        return str(tmp_path / 'other.py')

    return write


@pytest.mark.parametrize(
    ('text', 'message', 'hint'),
    [
        (
            "_base_ = ['digits/vq_ema.py']\ntrianer = dict(iters=1)",
            "unknown top-level name 'trianer'; did you mean 'trainer'?",
            'A config has',
        ),
        (
            "_base_ = ['digits/vq_ema.py']\ntrainer = dict(itres=1)",
            "trainer: Trainer has no parameter 'itres'; did you mean 'iters'?",
            'It takes',
        ),
        ('x = 1 +', 'other.py:1: invalid syntax', 'Fix the syntax'),
        ('x = [][1]', 'other.py:1: IndexError', 'Fix this line'),
        (
            "custom_imports = ['no_such_module_of_a_user']",
            "'no_such_module_of_a_user' cannot be imported",
            'Run from the folder',
        ),
    ],
)
def test_a_bad_config_ends_with_code_2_and_the_hint_last(capsys, write_other, text, message, hint):
    assert command.main([write_other(text)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[0] and lines[0].startswith('error: ') and lines[-1].startswith(hint)


def test_dry_run_prints_the_tiny_form(capsys, monkeypatch):
    monkeypatch.setenv('DRY_RUN', 'True')
    assert command.main([NAME, '--no-check']) == 0
    assert PyConfig.loads(capsys.readouterr().out).trainer.iters == 8


def test_dry_run_without_a_tiny_form_is_refused(capsys, monkeypatch, write_other):
    monkeypatch.setenv('DRY_RUN', 'True')
    assert command.main([write_other('trainer = dict()')]) == 2
    assert 'has no tiny form' in capsys.readouterr().err


def test_autocast_is_the_precision_of_the_strategy():
    config = compose(NAME, {}, {}, autocast=True)
    assert config.trainer.strategy.precision == 'bf16'


# counting


class Halves(nn.Module):
    """A module that is never called itself, only its methods."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 5), nn.Conv2d(3, 4, 3, padding=1)


class Counted(Task):
    def __init__(self) -> None:
        super().__init__()
        self.halves, self.twice, self.unused = Halves(), nn.Linear(5, 5, bias=False), nn.Linear(7, 7)

    def validation_step(self, batch: Batch) -> Outputs:
        image = batch.image.float()
        features = self.halves.first(image.flatten(1))
        self.halves.second(image)
        return Outputs(self.twice(self.twice(features)) @ torch.zeros(5, 6, device='meta'))


def test_operations_are_those_of_the_closed_form_part_by_part():
    with torch.device('meta'):
        task = Counted()
    linear, conv, twice, loose = 2 * 12 * 5, 2 * 3 * 4 * 9 * 2 * 2, 2 * (2 * 5 * 5), 2 * 5 * 6
    flops = count_flops(task, (2, 2))
    assert flops == {
        'Global': linear + conv + twice + loose,
        'halves': linear + conv,
        'halves.first': linear,
        'halves.second': conv,
        'twice': twice,
    }
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in task.modules())


class Looking(Counted):
    """Depends on values, which the meta device does not have."""

    def validation_step(self, batch: Batch) -> Outputs:
        return Outputs(batch.image * batch.image.max().item())


def test_model_that_looks_at_values_is_counted_without_operations(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger('vq'), 'propagate', True)
    counts = count_model({'model': {'type': Looking}})
    assert counts['model'] == (sum(parameter.numel() for parameter in Looking().parameters()), None)
    assert 'operations cannot be counted' in caplog.text


# composing


def test_validator_takes_the_trainers_model_and_strategy_unless_it_has_its_own():
    config = PyConfig(trainer={'model': 1, 'strategy': 2, 'dataset': 3}, validator={'strategy': 4})
    assert runner_config(config, 'validator') == {'strategy': 4, 'model': 1}
    assert config.validator == {'strategy': 4}
    with pytest.raises(ConfigError, match="the config has no 'validator'"):
        runner_config(PyConfig(trainer={}), 'validator')


def test_digest_depends_on_content_and_not_on_the_order_of_keys():
    one, two = {'a': 1, 'b': [{'c': 1, 'd': (2,)}]}, {'b': [{'d': (2,), 'c': 1}], 'a': 1}
    assert digest(one) == digest(two) == digest(PyConfig(one))
    assert len({digest(part) for part in (one, {'a': 2}, {'a': '2'}, [1, 2], [2, 1])}) == 5


def test_custom_imports_as_text_are_refused(write_other):
    with pytest.raises(ConfigError, match="custom_imports is 'package'"):
        compose(write_other("custom_imports = 'package'"), {}, {})


@pytest.mark.slow
def test_missing_files_are_named_with_one_command(capsys, tmp_path, monkeypatch):
    """Of the model and of the networks of metrics; what is present is not fetched, and what nobody publishes is said."""
    monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path))
    asked = ['ic/dinov2_imagenet_ddp.py', 'teacher=dinov2_s', '--override']
    for name, file in (('one', 'lpips/vgg.pth'), ('two', 'mine.pth')):
        network = f"dict(type='TeacherImages', teacher=dict(type='MAETeacher', depth=1, file='{file}'), image_size=224)"
        asked.append(f".validator.metrics.{name}:dict(type='FeatureMetric', figures=['cmmd'], network={network})")
    model, published, own = (tmp_path / file for file in ('dinov2/dinov2_vits14_pretrain.pth', 'lpips/vgg.pth', 'mine.pth'))

    def lines() -> list[str]:
        assert command.main(asked) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith('# ') and 'composed' not in line]

    for file in (model, published):
        file.parent.mkdir()
    published.write_bytes(b'x')
    assert lines() == [
        f'# pretrained files: 3, and 2 missing: {model}, {own}',
        '# fetch them: python -m vq.tools.prepare_checkpoints dinov2-s',
        f'# published nowhere, so train the run or put the file there: {own}',
    ]
    model.write_bytes(b'x')
    own.write_bytes(b'x')
    assert lines() == ['# pretrained files: 3, and none is missing']
    assert command.main([NAME]) == 0
    assert 'pretrained files' not in capsys.readouterr().out


def test_a_run_that_is_not_there_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(['ic/dinov2_imagenet_ddp.py', 'teacher=digits']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        '# pretrained files: 1, and 1 missing: ic/digits',
        '# published nowhere, so train the run or put the file there: ic/digits',
    ]
