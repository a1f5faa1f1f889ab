"""``vq``: the table of commands, options of the launcher, errors, and what help imports."""

from __future__ import annotations

import importlib
import os
import subprocess
from pathlib import Path

import pytest

import vq
from tests.sources import imported_by
from tests.warm import programs
from vq.cli import commands, main
from vq.cli.commands import COMMANDS

CLUSTER = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT', 'SLURM_STEP_NUM_TASKS')


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in CLUSTER:
        monkeypatch.delenv(name, raising=False)


def run(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """``vq WORDS`` as another process, in ``folder``."""
    environment = {name: value for name, value in os.environ.items() if name not in CLUSTER}
    environment |= {'PYTHONPATH': str(Path(vq.__file__).parents[1]), **variables}
    return subprocess.run(
        [programs() / 'python', '-m', 'vq', *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize('name', COMMANDS)
def test_each_command_has_a_body_with_examples(name):
    command = COMMANDS[name]
    body = importlib.import_module(command.body)
    parser = body.make_parser()
    assert parser.prog == f'vq {name}' and callable(body.main)
    assert 'examples:' in parser.epilog and f'vq {name}' in parser.epilog
    if command.door:
        assert f'python -m {command.door}' in parser.format_help()
        assert importlib.util.find_spec(command.door) is not None
    assert command.door or not command.ranks  # ranks are started as python -m DOOR


def test_other_words_name_commands():
    assert set(commands.OTHER_WORDS.values()) <= set(COMMANDS) and not set(commands.OTHER_WORDS) & set(COMMANDS)


@pytest.mark.parametrize('words', [[], ['--help'], ['--version'], ['train', '--help'], ['trian']])
def test_answers_import_the_standard_library_and_vq_only(words):
    """Their seconds are measured by ``benchmarks/startup.py``."""
    said, packages = imported_by(words)
    assert 'vq' in said and not packages


def test_help_lists_all_commands_and_version(capsys):
    assert main.main([]) == 0
    said = capsys.readouterr().out
    assert all(f'\n  {name} ' in said for name in COMMANDS) and '--max-restarts' in said
    with pytest.raises(SystemExit) as end:
        main.main(['--version'])
    assert end.value.code == 0 and capsys.readouterr().out == f'vq {vq.__version__}\n'


@pytest.mark.parametrize(
    ('words', 'message', 'hint'),
    [
        (['trian'], "error: vq has no command 'trian'; did you mean 'train'?", 'It has: train, val'),
        (['inference'], "error: vq has no command 'inference'; 'reconstruct' does that", 'It has: '),
        (['vq.train'], "error: vq has no command 'vq.train'; 'train' does that", 'It has: '),
        (
            ['train', '--nproc-per-node', '2', 'tok', 'a.py'],
            'error: --nproc-per-node is an option of the launcher, and stands before the command',
            'Write: vq --nproc-per-node 2 train tok a.py',
        ),
        (
            ['--nnodes', '1', 'train', 'tok', 'a.py', '--max_restarts=3'],
            'error: --max-restarts is an option of the launcher, and stands before the command',
            'Write: vq --nnodes 1 --max_restarts=3 train tok a.py',
        ),
        (
            ['--nproc-per-node', '2', 'config', '--list'],
            "error: vq config runs in one process, so '--nproc-per-node 2' does not apply",
            'Leave it out.',
        ),
        (
            ['--nproc-per-node', 'two', 'train'],
            "error: --nproc-per-node needs a number from 1 to 9999, not 'two'",
            'Usage: vq',
        ),
        (['--dry'], 'error: nothing to start', 'Usage: vq'),
        (['--nproc-per-node', '2', 'train', 'photos/ar.py'], "error: 'photos/ar.py' is a config file", 'NAME is the folder'),
    ],
)
def test_errors(words, message, hint, capsys):
    assert main.main(words) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(message) and said[-1].startswith(hint)


def test_ranks_start_as_auto_torchrun_starts_them(capsys):
    """The processes of ``vq --nproc-per-node 2 train`` are those of ``auto_torchrun --nproc-per-node 2 -m vq.train``."""
    from vq.launch import main as launcher

    words = ['--dry', '--nproc-per-node', '2', '--max-restarts', '3']
    assert main.main([*words, 'train', 'tok', 'a.py', 'k=v', '.trainer.callbacks[-1].interval=1']) == 0
    ours = capsys.readouterr().out
    assert launcher.main([*words, '-m', 'vq.train', 'tok', 'a.py', 'k=v', '.trainer.callbacks[-1].interval=1']) == 0
    assert ours == capsys.readouterr().out and len(ours.splitlines()) == 2 and 'RANK=1 WORLD_SIZE=2' in ours


def test_tasks_of_srun_and_pods_of_kubernetes_are_ranks(capsys, monkeypatch):
    for name, value in {'RANK': '1', 'WORLD_SIZE': '2', 'MASTER_ADDR': 'pod-0'}.items():
        monkeypatch.setenv(name, value)
    assert main.main(['--dry', '--nproc-per-node', '4', 'val', 'tok']) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and 'RANK=4 WORLD_SIZE=8' in said[0] and '-m vq.val tok' in said[0]


def test_help_of_a_command_starts_no_ranks(capsys):
    with pytest.raises(SystemExit) as end:
        main.main(['--nproc-per-node', '8', 'train', 'tok', '--help'])
    assert end.value.code == 0 and capsys.readouterr().out.startswith('usage: vq train ')


@pytest.mark.slow
def test_a_message_repeats_the_command_as_it_was_typed(tmp_path):
    """The hint for an untrusted run repeats the whole command."""
    (tmp_path / 'work_dirs' / 'other').mkdir(parents=True)
    (tmp_path / 'work_dirs' / 'other' / 'config.json').write_text(
        '{"custom_imports": ["mine"], "trainer": {"type": "Trainer"}}'
    )
    ended = run(tmp_path, 'config', 'work_dirs/other/config.json', '.trainer.iters=1')
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert last.endswith('repeat with --trust: python -m vq config work_dirs/other/config.json .trainer.iters=1 --trust'), (
        ended
    )


@pytest.mark.slow
def test_one_device_trains_in_this_process_and_two_in_two(tmp_path):
    words = ['train', 'digits', 'digits/vq_ema.py', '.trainer.iters=2', 'strategy=ddp']
    alone = run(tmp_path, *words, DRY_RUN='True')
    assert alone.returncode == 0, alone.stderr
    both = run(tmp_path, '--nproc-per-node', '2', *words, DRY_RUN='True')
    assert both.returncode == 2
    again = 'error: the run work_dirs/dry_run/digits exists already'
    assert again in both.stderr.splitlines()
    both = run(tmp_path, '--nproc-per-node', '2', 'train', 'both', *words[2:], DRY_RUN='True')
    assert both.returncode == 0, both.stderr
