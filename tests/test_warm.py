"""Warm programs behave like cold ones: arguments, folder, environment, streams, exit codes, signals."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.snippets import environment

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
def test_a_signal_reaches_the_copy(folder: Path, warm_programs: Path) -> None:
    running = subprocess.Popen(
        [warm_programs / 'python', '-m', 'waits'],
        cwd=folder,
        env=environment(warm_programs),
        stdout=subprocess.PIPE,
        text=True,
    )
    while not (folder / 'ready').exists():
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    assert running.communicate() == ('heard 15\n', None) and running.returncode == 7
