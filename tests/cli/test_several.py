"""Ranks under a launcher fail, and are stopped, like one command."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runners.support import start, write_config
from vq.cli import several

pytestmark = pytest.mark.slow


def test_bad_usage_on_two_ranks_is_said_once_more_and_exits_with_2(tmp_path: Path) -> None:
    config = str(write_config(tmp_path))
    done = start(tmp_path, 'run', config, '--override', '.trainer.model.tokenizer.encoder.widht:8', ranks=2)
    assert done.returncode == 2
    message, hint = done.stderr.strip().splitlines()[-2:]
    assert message.startswith("error: trainer.model.tokenizer.encoder: ConvEncoder has no parameter 'widht'")
    assert hint.startswith('It takes: ')


def test_a_signal_reaches_what_was_started(tmp_path: Path) -> None:
    heard = tmp_path / 'heard'
    script = (
        'import signal, sys, time, pathlib\n'
        f'def hear(number, frame):\n    pathlib.Path({str(heard)!r}).write_text(str(number))\n    sys.exit(3)\n'
        'signal.signal(signal.SIGTERM, hear)\n'
        f'pathlib.Path({str(tmp_path / "ready")!r}).touch()\n'
        'time.sleep(60)\n'
    )
    code = f'from vq.cli import several; import sys; sys.exit(several.run(["-c", {script!r}]))'
    launcher = subprocess.Popen([sys.executable, '-c', code])
    deadline = time.monotonic() + 60
    while not (tmp_path / 'ready').exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    launcher.send_signal(signal.SIGUSR1)
    assert launcher.wait(30) == 1
    assert heard.read_text() == str(int(signal.SIGTERM))


def test_the_first_message_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(several.VARIABLE, str(tmp_path / 'error.json'))
    several.leave('first', 'do this', 2)
    several.leave('second', 'do that', 1)
    assert '"first"' in (tmp_path / 'error.json').read_text()
    assert 'second' not in (tmp_path / 'error.json').read_text()
