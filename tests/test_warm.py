"""Warm programs behave like cold ones: arguments, folder, environment, streams, exit codes, signals."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.snippets import ROOT, environment
from tests.warm import WarmStart, modules, programs

SAYS = """
import os, random, signal, sys
print(sys.argv[1:], os.getcwd(), os.environ.get('MARK'), __name__, sys.path[0], 'HOME' in os.environ)
print(sys.stdin.read(), end='')
print(sorted(name for name in sys.modules if name.split('.')[0] == 'vq'), file=sys.stderr)
if sys.argv[1] == 'fail':
    sys.exit('words')
if sys.argv[1] == 'raise':
    raise ValueError(3)
if sys.argv[1] == 'die':
    os.kill(os.getpid(), signal.SIGKILL)
"""

WAITS = """
import signal, sys, time
def end(number, frame):
    print('heard', number)
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
open('ready', 'w').close()
time.sleep(60)
"""


@pytest.fixture(scope='module')
def warm_programs() -> Iterator[Path]:
    """Those of a process without vq."""
    with WarmStart() as warm:
        yield warm.folder
    assert not warm.folder.exists(), 'its process has ended'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'says.py').write_text(SAYS)
    (tmp_path / 'waits.py').write_text(WAITS)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize('name', ['python', 'auto_torchrun'])
@pytest.mark.parametrize('word', ['fine', 'fail', 'raise', 'die', 'two words'])
def test_warm_is_cold(name: str, word: str, folder: Path, warm_programs: Path) -> None:
    def run(first: Path | None) -> tuple[int, str, str]:
        place = environment(first) | {'MARK': word}
        del place['HOME']
        command = [name, '-m', 'says', word, "it's", '']
        program = next(path for part in place['PATH'].split(':') if (path := Path(part) / name).exists())
        done = subprocess.run([program, *command[1:]], cwd=folder, env=place, input='given', capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    (code, out, err), cold = run(warm_programs), run(None)
    assert (code, out) == cold[:2]
    if word == 'raise':  # the last frames, and what a command says of an error that is not the user's
        assert err.split('in <module>')[-1] == cold[2].split('in <module>')[-1] and 'ValueError: 3' in err
    else:
        assert err == cold[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    'words',
    [
        ['-u', '-m', 'says'],
        ['says.py'],
        ['-c', SAYS],
        ['-u', '-c', SAYS],
        ['-P', 'says.py'],
        ['-P', '-c', SAYS],
        ['-I', 'says.py'],
    ],
)
def test_scripts_and_texts_are_run_as_modules_are(words: list[str], folder: Path, warm_programs: Path) -> None:
    def run(python: str | Path) -> subprocess.CompletedProcess[str]:
        command = [python, *words, 'fine', "it's"]
        return subprocess.run(command, cwd=folder, env=environment(), input='given', capture_output=True, text=True)

    warm, cold = run(warm_programs / 'python'), run(sys.executable)
    assert (warm.returncode, warm.stdout, warm.stderr) == (cold.returncode, cold.stdout, cold.stderr)
    assert warm.returncode == 0 and warm.stdout


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_the_copy(number: signal.Signals, folder: Path, warm_programs: Path) -> None:
    running = subprocess.Popen(
        [warm_programs / 'python', '-m', 'waits'],
        cwd=folder,
        env=environment(warm_programs),
        stdout=subprocess.PIPE,
        text=True,
    )
    while not (folder / 'ready').exists():
        time.sleep(0.02)
    running.send_signal(number)
    expected = ('heard 15\n', 7) if number == signal.SIGTERM else ('', -9)
    assert (running.communicate(timeout=30)[0], running.returncode) == expected, 'the copy holds the pipe until it ends'


@pytest.mark.slow
def test_others_join_a_process_and_it_goes_on_without_them(warm_programs: Path) -> None:
    with WarmStart(folder=warm_programs) as other:
        assert other._server is None, 'it has not started another'
    command = [warm_programs / 'python', '-c', 'print(3)']
    assert subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout == '3\n'


@pytest.mark.slow
def test_programs_of_the_tests_have_imported_vq_of_this_checkout() -> None:
    code = "import sys, vq; print(vq.__file__, *sorted(name for name in sys.modules if name.startswith('vq.')))"
    command = [programs() / 'python', '-c', code]
    file, *names = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout.split()
    assert Path(file) == ROOT / 'vq/__init__.py'
    assert {*names} >= {name for name in modules() if name.startswith('vq.')}
    assert 'vq.train' not in names, 'it is run as a program'
