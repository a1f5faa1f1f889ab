"""Bad input ends with exit code 2, a message with place and cause, and a last line with advice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runners.support import train, write_config
from vq.cli import tokenize, val

Outcome = tuple[int, str, str]  # exit code, message, last line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv('DRY_RUN', raising=False)
    monkeypatch.delenv('RANK', raising=False)
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    return tmp_path


@pytest.fixture
def command(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*arguments: str, main: Callable[[list[str]], int] | None = None) -> Outcome:
        capsys.readouterr()
        code = main(list(arguments)) if main else train(str(folder), *arguments)
        lines = capsys.readouterr().err.strip().splitlines()
        start = max((index for index, line in enumerate(lines) if line.startswith('error: ')), default=0)
        return code, ' '.join(lines[start:-1]), lines[-1]

    return run


@pytest.mark.parametrize(
    ('overrides', 'message', 'advice'),
    [
        (
            ['.trainer.model.tokenizer.quantizer.type::VektorQuantizer'],
            "trainer.model.tokenizer.quantizer: unknown type 'VektorQuantizer'",
            'VectorQuantizer',
        ),
        (
            ['.trainer.optimizers.tokenizer:dict(type="AdamW", learning_rate=1)'],
            "AdamW has no parameter 'learning_rate'",
            'It takes: ',
        ),
        (['.trainer.iters::many'], "trainer.iters: 'many' is a str, and int | None is needed", 'Give a value of that type.'),
        (['.trainer.modell.tokenizer:1'], "has no 'modell'; did you mean 'model'?", 'It has: '),
        (
            ['.trainer.model.tokenizer.encoder.widht:8'],
            "ConvEncoder has no parameter 'widht'; did you mean 'width'?",
            'It takes: ',
        ),
        (['.trainr:1'], "the config has no 'trainr'; did you mean 'trainer'?", 'It has: '),
        (['.trainer.callbacks[20].interval:1'], '[20] does not exist', 'vq config'),
    ],
)
def test_configs(command: Callable[..., Outcome], overrides: list[str], message: str, advice: str) -> None:
    code, found, last = command('run', 'tiny.py', '--override', *overrides)
    assert code == 2
    assert message in found + last
    assert advice in found + last


def test_a_missing_config(command: Callable[..., Outcome]) -> None:
    code, found, last = command('run', 'tinny.py')
    assert code == 2
    assert "config file 'tinny.py' does not exist; did you mean 'tiny.py'?" in found
    assert last.startswith('Searched: ')


def test_an_unknown_option(command: Callable[..., Outcome]) -> None:
    code, found, last = command('run', 'tiny.py', '--config-options', 'stratgy::ddp')
    assert code == 2
    assert "has no option 'stratgy'; did you mean 'strategy'?" in found
    assert 'batch_size' in last


def test_weights_that_are_not_there(command: Callable[..., Outcome]) -> None:
    code, found, last = command('run', 'tiny.py', '--load-model-from', 'nowhere/model.safetensors')
    assert code == 2
    assert 'nowhere/model.safetensors' in found + last


def test_an_empty_dataset_folder(command: Callable[..., Outcome], folder: Path) -> None:
    (folder / 'pictures/train').mkdir(parents=True)
    (folder / 'pictures/train/notes.txt').write_text('no picture')
    dataset = 'dict(type="FolderDataset", root="pictures", split="train", transform=dict(type="none", image_size=32))'
    code, found, last = command('run', 'tiny.py', '--override', f'.trainer.dataset:{dataset}')
    assert code == 2
    assert 'pictures' in found
    assert 'holds no image' in found
    assert last


def test_a_run_that_exists(command: Callable[..., Outcome], folder: Path) -> None:
    (folder / 'work_dirs/run').mkdir(parents=True)
    (folder / 'work_dirs/run/log.jsonl').write_text('{"step": 1, "kind": "train"}\n')
    code, found, last = command('run', 'tiny.py')
    assert code == 2
    assert 'exists already' in found
    assert '--auto-resume' in last
    assert '--overwrite' in last
    assert (folder / 'work_dirs/run/log.jsonl').exists()


def test_a_place_that_cannot_be_written(command: Callable[..., Outcome]) -> None:
    if not os.path.isdir('/proc/self'):
        pytest.skip('needs a file system that refuses everybody, root too')
    code, found, last = command('run', 'tiny.py', '--work-dir', '/proc/self/vq')
    assert code == 2
    assert 'cannot be made' in found
    assert '--work-dir' in last


def test_a_checkpoint_that_is_not_complete(command: Callable[..., Outcome], folder: Path) -> None:
    (folder / 'work_dirs/run/checkpoints/iter_4').mkdir(parents=True)
    code, found, last = command('run', 'tiny.py', '--load-from', 'iter_4')
    assert code == 2
    assert 'is not a complete checkpoint' in found
    assert 'none' in last


def test_nothing_to_validate(command: Callable[..., Outcome]) -> None:
    code, found, last = command('run', 'tiny.py', main=val.main)
    assert code == 2
    assert 'has no complete checkpoint' in found
    assert '--load-model-from' in last


class TestAfterTraining:
    """Arguments that do not fit an existing short run."""

    @pytest.fixture
    def run(self, command: Callable[..., Outcome], folder: Path) -> Path:
        assert train(str(folder), 'run', 'tiny.py', '--override', '.trainer.iters:3') == 0
        return folder / 'work_dirs/run'

    def test_another_architecture(self, command: Callable[..., Outcome], run: Path) -> None:
        wider = '.trainer.model.tokenizer.encoder.width:16'
        code, found, last = command('other', 'tiny.py', '--load-model-from', str(run), '--override', wider)
        assert code == 2
        assert 'another architecture' in found + last
        code, found, last = command('run', 'tiny.py', '--auto-resume', '--override', wider, '.trainer.iters:5')
        assert code == 2
        assert 'trainer.model.tokenizer.encoder.width: 8 -> 16' in found
        assert '--change' in last
        code, found, last = command('run', 'tiny.py', '--auto-resume', '--change', '--override', wider, '.trainer.iters:5')
        assert code == 2
        assert 'another architecture' in found
        assert 'run folder' in last

    def test_tokens_of_another_tokenizer(self, command: Callable[..., Outcome], run: Path) -> None:
        arguments = ['run', 'tiny.py', '--load-model-from', str(run)]
        assert tokenize.main(arguments) == 0
        code, found, last = command(*arguments, '--weights', 'model', main=tokenize.main)
        assert code == 2
        assert 'another tokenizer' in found
        assert 'weights_hash' in found
        assert last
