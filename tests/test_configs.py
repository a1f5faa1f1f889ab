"""Every shipped config: header, composition, check, counting, and a run of its tiny form through all commands."""

from __future__ import annotations

import ast
import json
import math
import re

import numpy
import pytest
from PIL import Image

from tests.runners.support import commands_here
from tests.shipped import FOLDER, all_configs, composed, entries, first_alike, fragments, types_in, use_few_digits
from vq.assembly.compose import checked, compose
from vq.assembly.counting import count_model
from vq.core.config import PyConfig
from vq.core.meta import on_meta
from vq.io.spec import size_of
from vq.registries import VQRunnerRegistry

COUNTED: dict[tuple[str, tuple[int, int]], tuple[int, float | None]] = {}  # of each model and image size once

CONTINUOUS = {'KLAutoencoder', 'MAEAutoencoder', 'RepresentationAutoencoder'}


@pytest.fixture(params=entries())
def entry(request, tmp_path, monkeypatch) -> str:
    """The name of a config, as given outside of the checkout."""
    monkeypatch.chdir(tmp_path)
    return f'configs/{request.param}'


def runners(config: PyConfig) -> list[str]:
    return [which for which in ('trainer', 'validator') if which in config]


@pytest.mark.parametrize('name', all_configs())
def test_config_opens_with_what_it_is(name):
    text = ast.get_docstring(ast.parse((FOLDER / name).read_text()))
    assert text, f'{name} has no docstring'
    if name in entries():
        command = rf'auto_torchrun -m vq\.\w+ \S+ configs/{re.escape(name)}|python -m vq\.demo'
        assert re.search(command, text), 'no command that runs it'
        assert re.search(r'\b(hours?|minutes?|seconds?|min|s|h)\b', text), 'does not say how long it takes, and on what'
        assert re.search(r'expect|reach|measured|quoted', text, re.IGNORECASE), 'does not say what to expect of it'


@pytest.mark.slow
def test_fragments_compose():
    assert {name for name, _ in fragments()} >= {name for name in all_configs() if name.startswith('strategies/')}


def test_config_composes_and_passes_the_check(entry):
    config = compose(entry, {}, {}, tiny=False)
    assert runners(config)
    for which in runners(config):
        checked(config, which)


def test_tiny_form_is_small_and_passes_the_check(entry):
    config = compose(entry, {}, {}, tiny=True)
    for which in runners(config):
        checked(config, which)
        dataset = config[which].dataset
        assert 'Digits' in dataset.get('source', dataset).type, 'the tiny form must use embedded data'
    if 'trainer' in config:
        assert config.trainer.get('iters') == 8


@pytest.mark.slow
@pytest.mark.parametrize('tiny', [False, True])
def test_config_survives_being_written_down(entry, tiny, tmp_path):
    config = composed(entry, tiny)
    config.dump(tmp_path / 'composed.py')
    assert compose(str(tmp_path / 'composed.py'), {}, {}, tiny=False) == config


@pytest.mark.slow
def test_config_is_built_and_counted_on_the_meta_device(entry):
    config, built = composed(entry, tiny=False), {}
    for which in runners(config):
        judged = checked(config, which)
        text = judged['model'].dumps()
        with on_meta():  # of a validator with the same model everything else
            runner = VQRunnerRegistry.build({**judged, 'model': built.get(text, judged['model'])}, which)
        built[text] = runner.model
        tensors = [*runner.model.parameters(), *runner.model.buffers()]
        assert tensors and all(tensor.device.type == 'meta' for tensor in tensors)
        asked = text, size_of(judged['dataset'])
        if asked not in COUNTED:
            COUNTED[asked] = count_model(judged, runner.model)['model']
        parameters, operations = COUNTED[asked]
        assert parameters == sum(parameter.numel() for parameter in runner.model.parameters())
        assert operations is not None and operations > 0


@pytest.mark.slow
@pytest.mark.parametrize('strategy', ['ddp', 'fsdp', 'xla', 'base'])
def test_strategy_is_an_option_of_every_config(entry, strategy):
    config = compose(entry, {'strategy': strategy}, {}, tiny=False)
    kinds = {config[which].strategy.type for which in runners(config) if 'strategy' in config[which]}
    assert {kind.lower() for kind in kinds} == {f'{strategy}strategy'}


@pytest.fixture
def command_line(monkeypatch):
    """Commands run in this process, with fewer digits."""
    use_few_digits(monkeypatch)
    with commands_here():
        yield


@pytest.mark.slow
@pytest.mark.usefixtures('command_line')
def test_tiny_form_runs_through_all_commands(entry, tmp_path, capsys):
    """train -> val -> test -> tokenize -> inference, in an empty folder; of equal tiny forms the first.

    The others compose to the same text, which is all that the commands get to see.
    """
    if f'configs/{first_alike(entry)}' != entry:
        return
    from vq.cli import inference, sample, tokenize, train, val
    from vq.cli import test as test_command

    Image.fromarray(numpy.random.default_rng(0).integers(0, 255, (40, 48, 3), numpy.uint8)).save(tmp_path / 'picture.png')

    def run(main, *argv: str) -> str:
        assert main(list(argv)) == 0, capsys.readouterr().err[-3000:]
        return capsys.readouterr().out

    folder = tmp_path / 'work_dirs' / 'dry_run'
    run(train.main, 'tiny', entry)
    assert (folder / 'tiny' / 'checkpoints' / 'iter_8' / 'model.safetensors').is_file()
    run(val.main, 'tiny', entry)
    results = json.loads((folder / 'tiny' / 'val' / 'iter_8' / 'results.json').read_text())['results']
    numbers = [value for value in results.values() if isinstance(value, int | float)]
    assert numbers and all(math.isfinite(value) for value in numbers)
    weights = ('--load-model-from', str(folder / 'tiny'))
    kind = composed(entry).trainer.model.type
    if kind in (
        'ImageClassification',
        'ImageSegmentation',
        'SequenceModeling',
        'DiffusionTask',
        'LatentModeling',
    ):  # which have no tokens of their own
        run(test_command.main, 'tiny', entry, '--num-samples', '5', *weights)
        for main, words in ((tokenize.main, ['tiny', entry]), (inference.main, [entry, str(tmp_path / 'picture.png')])):
            assert main([*words, *weights]) == 2
            assert f'{kind} has no tokenizer' in capsys.readouterr().err
        if kind not in ('ImageClassification', 'ImageSegmentation'):
            run(sample.main, 'tiny', entry, '--num-samples', '3', '--batch-size', '2', *weights)
            assert len(list((folder / 'tiny_sample' / 'samples').iterdir())) == 3
        return
    run(test_command.main, 'tiny', entry, '--visual', '--num-samples', '5', *weights)
    assert bool(list((folder / 'tiny_test').rglob('*.png'))) == (kind != 'FeatureTokenization')  # which makes no pixels
    if CONTINUOUS & {*types_in(composed(entry))}:
        assert tokenize.main(['tiny', entry, *weights]) == 2
        assert 'it has no tokens' in capsys.readouterr().err
    else:
        run(tokenize.main, 'tiny', entry, *weights)
        assert list((folder / 'tiny_tokenize').rglob('manifest.json'))
    run(inference.main, entry, str(tmp_path / 'picture.png'), '--output', str(tmp_path / 'out'), *weights)
    assert {path.suffix for path in (tmp_path / 'out').iterdir()} == {'.png', '.npy'}
