"""``tools/fuzz.py``: its quick form finds nothing, and it would find what it looks for."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vq.cli import fuzz
from vq.cli.fuzzing import damage, forms, sandbox
from vq.cli.fuzzing.sandbox import read_apart
from vq.core.errors import UserError
from vq.core.random import python_stream

BOUND = 2**26


@pytest.mark.slow
def test_the_quick_form_finds_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    keep = tmp_path / 'failures'
    assert fuzz.main(['--quick', '--seed', '7', '--seconds', '5', '--keep', str(keep)]) == 0
    said = capsys.readouterr().out
    assert 'seed 7: 0 failures' in said and 'FAILED' not in said and not keep.exists()
    for kind in fuzz.COUNTS:
        assert int(next(line for line in said.splitlines() if line.strip().startswith(kind)).split('│')[1]) > 0


def raises(error: BaseException) -> Callable[[Path], str]:
    def read(path: Path) -> str:
        raise error

    return read


def hang(path: Path) -> str:
    time.sleep(60)
    return ''


def spin(path: Path) -> str:
    while True:
        pass


def take(path: Path) -> str:
    return str(len(bytearray(2**28)))


def take_too_much(path: Path) -> str:
    return str(len(bytearray(2**40)))


def connect(path: Path) -> str:
    with socket.socket() as probe:
        probe.connect_ex(('127.0.0.1', 9))
    return ''


def run_a_program(path: Path) -> str:
    return str(subprocess.run(['true'], check=False).returncode)


def write(path: Path) -> str:
    return str(path.with_name('other').write_text('x'))


def die(path: Path) -> str:
    os.kill(os.getpid(), 9)
    return ''


@pytest.mark.slow
@pytest.mark.parametrize(
    ('read', 'kind'),
    [
        (str, 'accepted'),
        (raises(UserError('the file x.bin is refused')), 'refused'),
        (raises(UserError('something is wrong')), 'no name'),
        (raises(KeyError('a')), 'traceback'),
        (raises(SystemExit(0)), 'traceback'),
        (raises(RecursionError()), 'traceback'),
        (take, 'memory'),
        (take_too_much, 'memory'),
        (hang, 'hang'),
        (spin, 'hang'),
        (die, 'death'),
        (connect, 'code'),
        (run_a_program, 'code'),
        (write, 'code'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_it_sees(read: Callable[[Path], str], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, 'SECONDS', 0.5 if read is hang else 60.0)
    monkeypatch.setattr(sandbox, 'CPU_SECONDS', 1 if read is spin else 20)
    assert read_apart(read, tmp_path / 'x.bin', BOUND).kind == kind


@pytest.mark.slow
def test_seed_and_number_determine_a_case(tmp_path: Path) -> None:
    first, second = (fuzz.Bench(tmp_path / name, seed=5) for name in ('a', 'b'))
    for kind in fuzz.COUNTS:
        for number in range(4):
            paths = []
            for bench in (first, second):
                chosen = number % len(bench.forms[kind])
                path = bench.scratch / f'{kind}{number}.bin'
                path.write_bytes(bytes(range(256)) * 4)
                made = bench.damage(fuzz.Case(kind, number, bench.forms[kind][chosen], '', False), path)
                paths.append((made.damage, path.read_bytes() if path.is_file() and not path.is_symlink() else None))
            assert paths[0] == paths[1]
    assert first.expected.keys() != second.expected.keys()
    assert [*first.expected.values()] == [*second.expected.values()], 'undamaged files read alike'


@pytest.mark.parametrize('name', damage.BYTES)
def test_damage_changes_the_file(name: str) -> None:
    data = bytes(range(1, 250)) * 3
    changed = [damage.BYTES[name](data, python_stream('test', number)) for number in range(20)]
    assert sum(content != data for content in changed) > 15 and len(set(changed)) > 10
    damage.BYTES[name](b'', python_stream('test'))
    damage.BYTES[name](b'a', python_stream('test'))


@pytest.mark.parametrize('name', ['bare.safetensors', 'w.pth', 'ours.npz'])
def test_files_written_anew_fit_their_checksums(name: str, tmp_path: Path) -> None:
    form = next(form for group in forms.FORMS.values() for form in group if form.name == name)
    form.make(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    rewrite = damage.rewriting(data, name)
    assert rewrite is not None
    assert len({rewrite(data, python_stream('test', number)) for number in range(20)}) > 10


def test_cases_of_all_kinds_advance_together() -> None:
    options = fuzz.make_parser().parse_args([])
    cases = [*fuzz.order(options)]
    assert len(cases) == 3320 == len({*cases})
    half = [kind for kind, _ in cases[:1660]]
    assert all(abs(half.count(kind) - count / 2) <= 1 for kind, count in fuzz.COUNTS.items())
    options.only = 'images:17'
    assert [*fuzz.order(options)] == [('images', 17)]
    options.only = 'statistics'
    assert len([*fuzz.order(options)]) == fuzz.COUNTS['statistics']
    for wrong in ('images:', 'images:x', 'pictures:1'):
        options.only = wrong
        with pytest.raises(UserError, match='no case'):
            next(fuzz.order(options))
