"""Commands with an adversarial config: the validator's model, averages, weights without a discriminator, files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.runners.gan import write_gan_config
from tests.runners.support import train
from vq.assembly.compose import checked, compose, runner_config
from vq.core.errors import ConfigError
from vq.registries import VQRunnerRegistry
from vq.runners.callbacks.anneal import AnnealCallback
from vq.runners.schedules import LinearSchedule
from vq.strategies.base import BaseStrategy


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of 4 steps, in ``work_dirs/gan``."""
    monkeypatch.chdir(tmp_path)
    config = write_gan_config(tmp_path)
    assert train(str(tmp_path), 'gan', str(config), '--config-options', 'iters:4', 'start:1') == 0
    return tmp_path


def test_a_validator_builds_no_discriminator(tmp_path: Path) -> None:
    overrides = {'.trainer.model.tokenizer.quantizer.codebook_size': 48, '.validator.metrics.codebook.codebook_size': None}
    config = compose(str(write_gan_config(tmp_path)), {}, overrides, tiny=False)
    found = runner_config(config, 'validator')
    assert found.model.type == 'ImageTokenization' and set(found.model) == {'type', 'tokenizer', 'losses'}
    assert found.model.tokenizer.quantizer.codebook_size == 48, 'an override of the trainer reaches the validator'
    validator = VQRunnerRegistry.build(checked(config, 'validator'), 'validator')
    assert validator.metrics['codebook'].sizes == (48,)
    assert not hasattr(validator.model, 'discriminator')
    assert config.trainer.model.type == 'AdversarialTokenization', 'the config itself stays as it was'


def test_the_average_leaves_the_discriminator_out(run: Path) -> None:
    checkpoint = run / 'work_dirs/gan/checkpoints/iter_4'
    model, average = load_file(checkpoint / 'model.safetensors'), load_file(checkpoint / 'ema.safetensors')
    assert any(name.startswith('discriminator.') for name in model)
    assert any(name.startswith('penalties.lecam.') for name in model)
    assert set(average) == {name for name in model if not name.startswith(('discriminator.', 'penalties.'))}


def test_weights_without_a_discriminator_start_a_run(run: Path) -> None:
    """Converted or averaged weights of a tokenizer are enough; the discriminator is new, which is logged."""
    weights = load_file(run / 'work_dirs/gan/checkpoints/iter_4/model.safetensors')
    save_file({name: value for name, value in weights.items() if name.startswith('tokenizer.')}, run / 'tokenizer.safetensors')
    words = ['--config-options', 'iters:4', 'start:1', '--load-model-from', 'tokenizer.safetensors']
    assert train(str(run), 'more', 'gan.py', *words) == 0
    assert ' new (discriminator.' in (run / 'work_dirs/more/log.txt').read_text()


def test_commands_that_ask_no_loss_need_no_perceptual_network(run: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from vq.cli import tokenize, val

    monkeypatch.delenv('DRY_RUN', raising=False)
    losses = '.trainer.model.losses:dict(l1=dict(type="L1Loss"), lpips=dict(type="LPIPSLoss", net="squeeze"))'
    weights = ['--load-model-from', 'work_dirs/gan']
    assert tokenize.main(['gan', 'gan.py', '--override', losses, *weights]) == 0
    assert (run / 'work_dirs/gan_tokenize/tokens/manifest.json').is_file()
    capsys.readouterr()
    assert val.main(['gan', 'gan.py', '--override', losses]) == 2
    message = capsys.readouterr().err
    assert 'squeezenet1_1' in message and 'vq.tools.prepare_checkpoints torchvision-squeezenet' in message


# settings that change during training


class Part(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.temperature, self.kind = 1.0, 'soft'


def annealed(setting: str, steps: int = 4) -> list[float]:
    model = torch.nn.Module()
    model.part = Part()
    runner = SimpleNamespace(model=model, iters=steps, step=0, strategy=BaseStrategy('cpu'))
    callback = AnnealCallback(setting, 2.0, LinearSchedule(final=0.5))
    callback.bind(runner)
    seen = []
    for runner.step in range(steps):
        callback.before_step()
        seen.append(model.part.temperature)
    return seen


def test_a_setting_follows_its_schedule() -> None:
    assert annealed('part.temperature') == [1.75, 1.5, 1.25, 1.0]


@pytest.mark.parametrize(
    ('setting', 'words'),
    [
        ('part.temprature', "did you mean 'temperature'"),
        ('prt.temperature', "did you mean 'part'"),
        ('part.kind', 'not a number'),
    ],
)
def test_a_setting_that_is_not_there_is_named(setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        annealed(setting)
