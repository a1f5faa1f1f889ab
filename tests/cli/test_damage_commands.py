"""Commands meet damage, closed output and modules that fail: exit code 2 with a message, never a traceback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.runners.support import REPOSITORY
from vq.cli import compare
from vq.cli import config as config_command
from vq.cli.errors import command

GOOD: dict[str, Any] = {'name': 'a', 'results': {'fid': 1.0}, 'metrics': {'fid': {'network': 'n', 'reference': None}}}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('DRY_RUN', raising=False)
    monkeypatch.chdir(tmp_path)


def no_traceback(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr().err
    assert 'Traceback' not in said and said.count('error: ') == 1 and len(said.strip().splitlines()) >= 2
    return said


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'\xff\xfe',
        b'[' * 100_000,
        b'{"results": {"fid": ' + b'9' * 5000 + b'}}',
        *(
            json.dumps({**GOOD, **change}).encode()
            for change in (
                {'metrics': [1]},
                {'metrics': {'a': 5}},
                {'metrics': {'fid': {'network': 'n', 'reference': 5}}},
                {'metrics': {'fid': {'network': 'n', 'figures': 5}}},
                {'metrics': {'fid': {'network': 'n', 'figures': [[1]]}}},
                {'dataset': 'x'},
                {'name': {'a': 1}},
                {'results': {'fid': [1]}},
                {'results': [1]},
            )
        ),
    ],
)
def test_results_that_are_compared(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path('good.json').write_text(json.dumps(GOOD))
    Path('r.json').write_bytes(content)
    assert compare.main(['good.json']) == 0
    capsys.readouterr()
    assert compare.main(['good.json', 'r.json']) == 2
    assert 'r.json' in no_traceback(capsys)


@pytest.mark.parametrize(
    ('code', 'words'),
    [
        ('1 / 0', 'ZeroDivisionError'),
        ('import sys; sys.exit(0)', 'SystemExit'),
        ('raise SystemExit', 'SystemExit'),
        ('a b', 'SyntaxError'),
        ('import no_such_package', 'no_such_package'),
        ('def f(): f()\nf()', 'RecursionError'),
    ],
)
def test_custom_imports_that_raise_or_exit(code: str, words: str, capsys: pytest.CaptureFixture[str], request: Any) -> None:
    name = f'fails_{abs(hash(code))}'
    Path(f'{name}.py').write_text(code)
    Path('c.py').write_text(f"_base_ = ['digits/vq_ema.py']\ncustom_imports = ['{name}']\n")
    request.addfinalizer(lambda: [sys.path.remove(path) for path in {str(Path.cwd())} & {*sys.path}])
    assert config_command.main(['c.py']) == 2
    said = no_traceback(capsys)
    assert name in said and words in said


@pytest.mark.parametrize('name', ['', '.x', '..', 'a b', '\0'])
def test_custom_imports_that_are_no_names(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path('c.json').write_text(json.dumps({'custom_imports': [name], 'trainer': {}}))
    assert config_command.main(['c.json', '--trust']) == 2
    assert 'custom_imports' in no_traceback(capsys)


def test_a_config_that_exits(capsys: pytest.CaptureFixture[str]) -> None:
    Path('c.py').write_text('import sys\nsys.exit(0)\n')
    assert config_command.main(['c.py']) == 2
    assert 'c.py:2: SystemExit' in no_traceback(capsys)


@pytest.mark.parametrize('code', [errno.EACCES, errno.EIO, errno.EISDIR, errno.ESTALE])
def test_a_file_that_cannot_be_read(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def main(argv: Sequence[str] | None = None) -> int:
        raise OSError(code, os.strerror(code), 'some/file.bin')

    assert main([]) == 2
    said = no_traceback(capsys)
    assert 'some/file.bin cannot be opened' in said and os.strerror(code) in said


@pytest.mark.slow
def test_config_into_head() -> None:
    """``vq.config CONFIG | head -1``, as a shell runs it: one line, nothing on stderr, exit code 0."""
    environment = {**os.environ, 'PYTHONPATH': str(REPOSITORY)}
    program = [sys.executable, '-u', '-m', 'vq.config', 'digits/vq_ema.py', '--no-check']
    done = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    assert done.stdout is not None and done.stderr is not None
    assert done.stdout.readline()
    done.stdout.close()
    said = done.stderr.read()
    assert (done.wait(), said) == (0, '')
