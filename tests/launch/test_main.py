"""``auto_torchrun``: its options, and commands that run in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback

import pytest

from tests.sources import ROOT
from vq.launch import main as launch


@pytest.fixture(autouse=True)
def _bare(bare_environment, monkeypatch):
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setattr(sys, 'argv', ['auto_torchrun'])


# the options


@pytest.mark.parametrize(
    ('argv', 'command', 'processes', 'restarts'),
    [
        (['script.py', '--nproc-per-node', '3'], ['script.py', '--nproc-per-node', '3'], None, None),  # the script's own
        (['-m', 'a.b', '--dry', '--help'], ['a.b', '--dry', '--help'], None, None),
        (['--nproc-per-node', '3', '-m', 'a.b', 'x', '--', 'y'], ['a.b', 'x', '--', 'y'], 3, None),
        (['--nproc-per-node=3', 'script.py'], ['script.py'], 3, None),
        (['--nproc_per_node=1', '--max_restarts=4', 'script.py'], ['script.py'], 1, 4),
        (['--dry', '-m', 'a.b'], ['a.b'], None, None),
    ],
)
def test_own_flags_stand_before_the_target(argv, command, processes, restarts):
    found = launch.read_options(argv)
    assert (found.command, found.nproc_per_node, found.max_restarts) == (command, processes, restarts)
    assert found.module == ('-m' in argv) and found.dry == (argv[0] == '--dry')


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        ([], 'nothing to start'),
        (['-m'], 'nothing to start'),
        (['--nproc-per-node', '2'], 'nothing to start'),
        (['--nproc-per-node', '0', 'a.py'], "--nproc-per-node needs a number from 1 to 9999, not '0'"),
        (['--nproc-per-node=gpu', 'a.py'], "not 'gpu'"),
        (['--nproc-per-node'], 'argument --nproc-per-node: expected one argument'),
        (['--nodes', '2', 'a.py'], 'unrecognized arguments: --nodes'),
        (['--max', '2', 'a.py'], 'unrecognized arguments: --max'),
        (['--max-restarts', '-1', 'a.py'], "--max-restarts needs a number from 0 to 9999, not '-1'"),
        (['--nnodes', '0', 'a.py'], "--nnodes needs a number from 1 to 99999, not '0'"),
        (['--master-port', '65536', 'a.py'], "--master-port needs a number from 1 to 65535, not '65536'"),
        (['--rdzv-endpoint', 'one:x', 'a.py'], "--master-port needs a number from 1 to 65535, not 'x'"),
        (['--nproc-per-node', '', 'a.py'], "--nproc-per-node needs a number from 1 to 9999, not ''"),
        (['--nnodes=', 'a.py'], "--nnodes needs a number from 1 to 99999, not ''"),
        (['--nproc-per-node', '2', '-m', 'no.such.module'], 'there is no module no.such.module'),
        (['-n', '2', 'a.py'], 'unrecognized arguments: -n'),
        (['-m', 'no.such.module'], 'there is no module no.such.module'),
        (['-m', 'vq.no_such_module'], 'there is no module vq.no_such_module'),
        (['no_such_script.py'], 'there is no file no_such_script.py'),
    ],
)
def test_bad_usage_ends_with_code_2_and_the_usage_last(capsys, argv, message):
    assert launch.main(argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[0] and lines[-1] == f'Usage: {launch.USAGE}'


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as end:
        launch.main(['--help'])
    text = capsys.readouterr().out
    assert end.value.code == 0 and 'srun --ntasks-per-node=1 auto_torchrun' in text
    assert all(f'--{name} ' in text for name in launch.OPTIONS)


# starting


def exit_code(argv):
    """The exit code of a process that runs this, with errors printed like Python's."""
    try:
        return launch.main(argv)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
    except Exception:
        traceback.print_exc()
    return 1


@pytest.mark.parametrize(
    ('body', 'code', 'error'),
    [
        ('import sys; sys.exit(3)', 3, ''),
        ('import sys; sys.exit()', 0, ''),
        ('x = 1', 0, ''),
        ('import sys; sys.exit("a message")', 1, 'a message'),
        ('open("no such file")', 1, 'FileNotFoundError'),  # the script's own fault, not a missing script
        ('import no_such_package', 1, 'ModuleNotFoundError'),
        ('import sys, beside; assert sys.argv[1:] == ["a", "b"]; sys.exit(beside.CODE)', 4, ''),
    ],
)
@pytest.mark.parametrize('as_module', [False, True])
def test_one_process_runs_here_and_its_exit_code_is_ours(tmp_path, monkeypatch, capsys, body, code, error, as_module):
    name = f'started_by_a_test_{abs(hash(body))}'
    (tmp_path / f'{name}.py').write_text(body)
    (tmp_path / 'beside.py').write_text('CODE = 4')
    monkeypatch.chdir(tmp_path)
    assert exit_code([*(['-m', name] if as_module else [f'{name}.py']), 'a', 'b']) == code
    sys.modules.pop('beside', None)
    assert error in capsys.readouterr().err


def test_a_script_elsewhere_finds_what_stands_beside_it(tmp_path, monkeypatch):
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools' / 'script.py').write_text('import sys, beside_the_script; sys.exit(beside_the_script.CODE)')
    (tmp_path / 'tools' / 'beside_the_script.py').write_text('CODE = 5')
    monkeypatch.chdir(tmp_path)
    assert exit_code(['tools/script.py']) == 5


@pytest.mark.slow
@pytest.mark.parametrize('launcher', [[sys.executable, '-m', 'vq.launch.main'], ['bash', str(ROOT / 'tools' / 'torchrun.sh')]])
def test_two_ranks_start(tmp_path, launcher):
    script = tmp_path / 'script.py'
    script.write_text(
        'import os, sys\nopen("rank" + os.environ["RANK"], "w").write(" ".join(sys.argv[1:]) + os.environ["WORLD_SIZE"])'
    )
    done = subprocess.run(
        [*launcher, '--nproc-per-node', '2', str(script), 'a b'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f'rank{rank}').read_text() for rank in (0, 1)] == ['a b2', 'a b2']
