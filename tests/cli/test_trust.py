"""Opening another user's run executes none of its code. Code that would run is named, with the command that allows it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vq
from tests.runners.support import commands_here, said_by, start, train, write_config
from vq.cli import config as config_command
from vq.cli import export, inference, sample, test, tokenize, val
from vq.cli import train as train_command
from vq.core.errors import UserError
from vq.io import runs

CODE = "open('executed', 'w').close()\n"
MODULE = 'module_that_came_along'


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, whose config imports nothing."""
    folder = tmp_path_factory.mktemp('trained')
    config = write_config(folder)
    text = config.read_text().replace("custom_imports = ['tests.runners.parts']\n", '')
    for name, part in (('noise', 'NoiseCallback'), ('sample_recorder', 'SampleRecorder')):
        text = text.replace(f"{name}=dict(type='{part}'),", '')
    config.write_text(text)
    with commands_here(dry=False):
        assert train(str(folder), 'run', 'tiny.py', '--override', '.trainer.iters:4') == 0
    return folder


@pytest.fixture
def home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the run to tamper with, in the working directory."""
    shutil.copytree(trained / 'work_dirs', tmp_path / 'work_dirs')
    (tmp_path / f'{MODULE}.py').write_text("open('executed', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop(MODULE, None)
    with commands_here(dry=False):
        yield tmp_path
    sys.modules.pop(MODULE, None)


class Pickled:
    """Unpickling it writes the file."""

    def __reduce__(self) -> Any:
        return open, ('executed', 'w')


def spoil(file: Path) -> None:
    """Put code into a file of a checkpoint or run. The checkpoint stays complete, as an attacker would make it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix in ('.pt', '.safetensors'):
        file.write_bytes(pickle.dumps({'state_dict': Pickled()}))
    else:
        file.write_text(CODE)
    reseal(file.parent)


def reseal(checkpoint: Path) -> None:
    if not (checkpoint / 'COMPLETE').is_file() or (checkpoint / 'COMPLETE').read_text() == CODE:
        return
    files = {
        path.name: {'size': path.stat().st_size, 'sha256': hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in checkpoint.iterdir()
        if path.name != 'COMPLETE'
    }
    (checkpoint / 'COMPLETE').write_text(json.dumps({'format_version': 1, 'files': files}))


def write_old_config(checkpoint: Path, text: str) -> None:
    (checkpoint / 'config.json').unlink()
    (checkpoint / 'spec.json').unlink()
    (checkpoint / 'config.py').write_text(text)
    reseal(checkpoint)


CHECKPOINT = 'checkpoints/iter_4'
FILES = [
    *(f'{CHECKPOINT}/{name}' for name in ('config.json', 'spec.json', 'meta.json', 'metrics.json', 'COMPLETE', 'rank_0.pt')),
    *(f'{CHECKPOINT}/{name}' for name in ('model.safetensors', 'ema.safetensors', 'training.pt', 'model.pth')),
    *(f'{CHECKPOINT}/{name}' for name in ('config.py', '__init__.py', 'conftest.py', 'torch.py', 'vq.py')),
    *('tiny.json', 'tiny.py', 'config.py', 'log.jsonl', 'log.txt', 'git.txt', 'launch.txt', 'checkpoints/latest'),
    *('__init__.py', 'sitecustomize.py', 'tests.py', 'numpy.py', 'model.safetensors', 'notes.md'),
]
READ = {  # a run opens whatever the others hold
    *(f'{CHECKPOINT}/{name}' for name in ('config.json', 'spec.json', 'metrics.json', 'COMPLETE', 'ema.safetensors')),
    *(f'{CHECKPOINT}/{name}' for name in ('training.pt', 'rank_0.pt', 'meta.json', 'model.safetensors')),
    'tiny.json',
    'log.jsonl',
}
OPENERS: dict[str, Callable[[], Any]] = {
    'load': lambda: vq.load('run'),
    'load a checkpoint': lambda: vq.load(f'work_dirs/run/{CHECKPOINT}'),
    'read': lambda: (runs.find('run').config, runs.find('run').spec, runs.find('run').describe()),
    'config': lambda: config_command.main(['work_dirs/run/tiny.py']),
    'config of the folder': lambda: config_command.main(['work_dirs/run', '--no-check']),
    'val': lambda: val.main(['run', 'work_dirs/run/tiny.py', '--again']),
    'upon it': lambda: config_command.main(['digits/ar.py', '--config-options', 'tokenizer_run::run', '--no-check']),
    'resume': lambda: train_command.main(['run', 'work_dirs/run/tiny.json', '--auto-resume']),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', FILES)
def test_code_in_any_file_of_a_run_is_not_executed(home: Path, capsys: Any, name: str) -> None:
    spoil(home / 'work_dirs/run' / name)
    damaged = []
    for what, open_it in OPENERS.items():
        try:
            if open_it() in range(1, 9):  # the exit code of a command
                damaged.append(what)
        except UserError:
            damaged.append(what)
        assert not (home / 'executed').exists()
    assert name in READ or not damaged, capsys.readouterr().err
    assert MODULE not in sys.modules


def test_all_of_it_together_is_not_executed(home: Path, capsys: Any) -> None:
    for name in FILES:
        spoil(home / 'work_dirs/run' / name)
    for open_it in OPENERS.values():
        with contextlib.suppress(UserError):
            open_it()
    assert not (home / 'executed').exists()


@pytest.mark.parametrize('older', [False, True])
def test_modules_are_imported_only_with_trust(home: Path, older: bool) -> None:
    checkpoint = home / 'work_dirs/run' / CHECKPOINT
    config = {**json.loads((checkpoint / 'config.json').read_text()), 'custom_imports': [MODULE]}
    if older:
        write_old_config(checkpoint, f"{vq_text(checkpoint)}custom_imports = ['{MODULE}']\n")
    else:
        (checkpoint / 'config.json').write_text(json.dumps(config))
        reseal(checkpoint)
    with pytest.raises(UserError, match=rf"the run 'run' names modules .*: {MODULE}") as caught:
        vq.load('run')
    assert 'vq.load(..., trust=True)' in caught.value.hint
    assert not (home / 'executed').exists() and MODULE not in sys.modules
    assert vq.load('run', trust=True).codebook_size == 32
    assert (home / 'executed').exists() and MODULE in sys.modules


def vq_text(checkpoint: Path) -> str:
    """The config of a checkpoint as older runs have it."""
    from vq.core import config_json
    from vq.core.config import PyConfig

    return PyConfig(config_json.read(checkpoint / 'config.json')).dumps()


IMAGES = ['picture.png', '--load-model-from', 'work_dirs/run']
COMMANDS: list[tuple[Any, str, list[str]]] = [
    (train_command.main, 'python -m vq.train', ['other', 'work_dirs/run/tiny.json']),
    (val.main, 'python -m vq.val', ['run', 'work_dirs/run/tiny.py']),
    (val.main, 'python -m vq.val', ['run', 'work_dirs/run']),
    (test.main, 'python -m vq.test', ['x', 'work_dirs/run/tiny.json', '--load-model-from', 'run']),
    (sample.main, 'python -m vq.sample', ['x', 'work_dirs/run/tiny.json', '--load-model-from', 'run']),
    (
        tokenize.main,
        'python -m vq.tasks.image_tokenization.tokenize',
        ['x', 'work_dirs/run/tiny.json', '--load-model-from', 'run'],
    ),
    (inference.main, 'python -m vq.inference', ['work_dirs/run/tiny.json', *IMAGES]),
    (config_command.main, 'python -m vq.config', ['digits/ar.py', '--config-options', 'tokenizer_run::run']),
    (config_command.main, 'python -m vq.config', ['digits/decoder.py', '--config-options', 'tokenizer_run::run', 'a b:1']),
    (
        config_command.main,
        'python -m vq.config',
        ['digits/probe.py', '--config-options', 'it_config::work_dirs/run/tiny.json'],
    ),
    (export.main, 'python -m vq.tools.export_hugging_face', ['run', 'out']),
]


@pytest.mark.parametrize(('main', 'program', 'words'), COMMANDS, ids=lambda value: value if isinstance(value, str) else '')
def test_the_message_has_the_command_to_repeat(home: Path, capsys: Any, main: Any, program: str, words: list[str]) -> None:
    run = home / 'work_dirs/run'
    for file in (run / 'tiny.json', run / CHECKPOINT / 'config.json'):
        file.write_text(json.dumps({**json.loads(file.read_text()), 'custom_imports': [MODULE, 'os']}))
    reseal(run / CHECKPOINT)
    said = said_by(capsys, main, *words, code=2).strip().splitlines()
    if main is export.main:  # it has looked at the model before: a tokenizer is no generator
        assert 'no generator' in said[-2]
    else:
        shown = ' '.join(f"'{word}'" if ' ' in word else word for word in words)
        assert f'modules that would be imported, and so executed: {MODULE}' in said[-2]
        assert said[-1].endswith(f'repeat with --trust: {program} {shown} --trust')
    assert not (home / 'executed').exists() and MODULE not in sys.modules


@pytest.mark.parametrize(
    ('variables', 'shown'),
    [
        ({}, 'python -m vq.val run work_dirs/run/tiny.json --trust'),
        ({'WORLD_SIZE': '2'}, 'auto_torchrun -m vq.val run work_dirs/run/tiny.json --trust'),
        (
            {'WORLD_SIZE': '2', 'VQ_COMMAND': 'auto_torchrun --nproc-per-node 2 -m vq.val run work_dirs/run/tiny.json'},
            'auto_torchrun --nproc-per-node 2 -m vq.val run work_dirs/run/tiny.json --trust',
        ),
    ],
)
def test_the_command_is_that_of_the_process(
    home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], shown: str
) -> None:
    file = home / 'work_dirs/run/tiny.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), 'custom_imports': [MODULE]}))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, 'argv', ['vq/val.py', 'run', 'work_dirs/run/tiny.json'])
    monkeypatch.setattr(sys, 'orig_argv', ['python', '-m', 'vq.val', 'run', 'work_dirs/run/tiny.json'])
    assert val.main() == 2
    assert capsys.readouterr().err.strip().endswith(f'repeat with --trust: {shown}')
    if not variables:
        monkeypatch.setattr(sys, 'orig_argv', ['python', 'bin/auto_torchrun', '--dry', '-m', 'vq.val', 'run', 'x'])
        assert val.main() == 2
        assert capsys.readouterr().err.strip().endswith('auto_torchrun --dry -m vq.val run x --trust')


def test_with_trust_the_command_goes_on(home: Path, capsys: Any) -> None:
    file = home / 'work_dirs/run/tiny.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), 'custom_imports': [MODULE]}))
    said_by(capsys, val.main, 'run', 'work_dirs/run/tiny.py', '--trust')
    assert (home / 'executed').exists() and MODULE in sys.modules


def test_an_older_config_with_code_needs_trust_too(home: Path, capsys: Any) -> None:
    checkpoint = home / 'work_dirs/run' / CHECKPOINT
    write_old_config(checkpoint, f'{vq_text(checkpoint)}{CODE}')
    with pytest.raises(UserError, match=r'config\.py:\d+: it has a statement of the kind Expr.*have to be executed'):
        vq.load('run')
    said = said_by(capsys, config_command.main, 'digits/ar.py', '--config-options', 'tokenizer_run::run', code=2)
    assert said.strip().endswith('python -m vq.config digits/ar.py --config-options tokenizer_run::run --trust')
    assert not (home / 'executed').exists()
    assert vq.load('run', trust=True).codebook_size == 32
    assert (home / 'executed').exists()


def test_what_the_user_names_is_executed_as_ever(home: Path, capsys: Any) -> None:
    """A command line is trusted: a config file, and the modules that it imports."""
    (home / 'mine.py').write_text(f"_base_ = ['configs/digits/vq_ema.py']\ncustom_imports = ['{MODULE}']\n{CODE}")
    said_by(capsys, config_command.main, 'digits/probe.py', '--config-options', 'it_config::mine.py', '--no-check')
    assert (home / 'executed').exists() and MODULE in sys.modules


@pytest.mark.slow
def test_ranks_name_the_launcher(home: Path) -> None:
    file = home / 'work_dirs/run/tiny.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), 'custom_imports': [MODULE]}))
    done = start(home, 'run', 'work_dirs/run/tiny.json', module='vq.val', ranks=2)
    assert done.returncode == 2 and MODULE in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith(': auto_torchrun --nproc-per-node 2 -m vq.val run work_dirs/run/tiny.json --trust')
    assert not (home / 'executed').exists()
