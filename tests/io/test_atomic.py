"""Files and folders are written atomically."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.io.samples import hidden
from vq.core.errors import RunFailure, UserError
from vq.io import atomic


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, '-c', ''])
    child.wait()
    return child.pid


def aside(folder: Path, name: str, kind: str, pid: int, host: str | None = None) -> Path:
    return folder / f'.{name}.{kind}-{host or atomic._host()}-{pid}-0123abcd'


def test_files_are_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / 'a' / 'b.txt'
    atomic.write_text(path, 'früh\n')
    assert path.read_bytes() == b'fr\xc3\xbch\n'
    atomic.write_bytes(path, b'')
    assert path.read_bytes() == b''
    atomic.write_json(path, {'b': [1, None], 'a': 'ü'})
    assert json.loads(path.read_text()) == {'b': [1, None], 'a': 'ü'}
    assert os.listdir(tmp_path / 'a') == ['b.txt']


def test_the_writer_counts_and_hashes_what_numpy_writes(tmp_path: Path) -> None:
    values = np.arange(700_000, dtype=np.int32).reshape(7, -1)
    with atomic.atomic_file(tmp_path / 'x.npy') as writer:
        np.save(writer, values)  # type: ignore[arg-type]
    assert np.array_equal(np.load(tmp_path / 'x.npy'), values)
    assert writer.size == (tmp_path / 'x.npy').stat().st_size
    printed = subprocess.run(['sha256sum', str(tmp_path / 'x.npy')], capture_output=True, text=True, check=True).stdout
    assert printed.split()[0] == writer.sha256


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / 'x'
    atomic.write_text(path, 'old')

    def stop_halfway() -> None:
        with atomic.atomic_file(path) as writer:
            writer.write(b'new')
            raise KeyError('stop')

    with pytest.raises(KeyError):
        stop_halfway()
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['x']


def test_a_folder_replaces_another(tmp_path: Path) -> None:
    final = tmp_path / 'set'
    for content in ('one', 'two'):
        with atomic.atomic_folder(final) as folder:
            assert folder.parent == tmp_path
            assert folder.name.startswith('.set.tmp-')
            (folder / 'deep').mkdir()
            (folder / 'deep' / 'file').write_text(content)
        assert (final / 'deep' / 'file').read_text() == content
        assert os.listdir(tmp_path) == ['set']

    def stop_halfway() -> None:
        with atomic.atomic_folder(final) as folder:
            (folder / 'file').write_text('three')
            raise KeyError('stop')

    with pytest.raises(KeyError):
        stop_halfway()
    assert os.listdir(tmp_path) == ['set']
    assert os.listdir(final) == ['deep']


def test_a_replacement_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / 'set'
    with atomic.atomic_folder(final) as folder:
        (folder / 'file').write_text('one')
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if Path(target) == final and '.tmp-' in str(source):
            raise OSError(errno.EIO, 'broken', str(target))
        rename(source, target)

    monkeypatch.setattr(os, 'rename', fail)
    with pytest.raises(RunFailure, match='set cannot be written: broken; what was there before is intact'):
        with atomic.atomic_folder(final) as folder:
            (folder / 'file').write_text('two')
    assert (final / 'file').read_text() == 'one'
    assert os.listdir(tmp_path) == ['set']


def test_where_folders_cannot_be_renamed_they_are_copied_with_the_marker_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real_open, real_rename = os.open, os.rename

    def watch(path: Path, flags: int, *rest: int, **places: int) -> int:
        if flags & os.O_WRONLY and Path(path).parent == tmp_path / 'set':
            opened.append(Path(path).name)
        return real_open(path, flags, *rest, **places)

    def refuse(source: Path, target: Path) -> None:
        if Path(source).is_dir():
            raise OSError(errno.EXDEV, 'no')
        real_rename(source, target)

    monkeypatch.setattr(os, 'open', watch)
    monkeypatch.setattr(os, 'rename', refuse)
    for content in ('one', 'two'):
        opened.clear()
        with atomic.atomic_folder(tmp_path / 'set') as folder:
            for name in (atomic.MARKER, 'z', 'A'):
                (folder / name).write_text(content)
        assert opened == ['A', 'z', atomic.MARKER]
        assert (tmp_path / 'set' / 'z').read_text() == content
        assert os.listdir(tmp_path) == ['set']


def test_sweep_deletes_only_what_dead_runs_left(tmp_path: Path) -> None:
    dead = dead_process()
    stale = [aside(tmp_path, 'a', 'tmp', dead), aside(tmp_path, 'b', 'tmp', os.getpid())]  # the second: a number used again
    mine = atomic.make_aside(tmp_path / 'c')
    alive = aside(tmp_path, 'd', 'tmp', os.getppid())
    young = aside(tmp_path, 'e', 'tmp', dead, host='elsewhere')
    old = aside(tmp_path, 'f', 'tmp', dead, host='elsewhere')
    other = tmp_path / '.hidden.tmp-of-someone'
    stale[0].write_text('a file')
    for folder in (stale[1], alive, young, old, other):
        folder.mkdir()
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    assert set(atomic.sweep(tmp_path)) == {*stale, old}
    assert set(tmp_path.iterdir()) == {mine, alive, young, other}
    assert atomic.sweep(tmp_path / 'none') == []


def test_sweep_puts_back_what_was_moved_away_and_not_replaced(tmp_path: Path) -> None:
    left = aside(tmp_path, 'set', 'old', dead_process())
    left.mkdir()
    (left / 'file').write_text('kept')
    assert atomic.standing(tmp_path / 'set') == left
    atomic.sweep(tmp_path)
    assert atomic.standing(tmp_path / 'set') == tmp_path / 'set'
    assert (tmp_path / 'set' / 'file').read_text() == 'kept'
    assert not hidden(tmp_path)
    assert atomic.standing(tmp_path / 'none') is None
    assert atomic.standing(tmp_path / 'none' / 'none') is None


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'file/x cannot be written: (Not a directory|File exists)'):
        atomic.write_text(tmp_path / 'file' / 'x', 'text')
    (tmp_path / 'folder').mkdir()
    with pytest.raises(UserError, match='cannot be written: Is a directory'):
        atomic.write_text(tmp_path / 'folder', 'text')
    assert not hidden(tmp_path)


def test_trouble_with_another_file_is_not_blamed_on_the_one_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic.atomic_folder(tmp_path / 'set'):
        Path('/nowhere/at/all').read_text()
    assert os.listdir(tmp_path) == []


def test_names_of_hosts_are_made_safe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(socket, 'gethostname', lambda: 'node-3.rack/7')
    folder = atomic.make_aside(tmp_path / 'a.b-c')
    (path, parts) = atomic._asides(tmp_path)[0]
    assert (path, parts['name'], parts['host'], parts['kind']) == (folder, 'a.b-c', 'node_3_rack_7', 'tmp')


def test_all_is_on_the_disk_before_the_rename_and_the_rename_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def watch_fsync(file: int) -> None:
        done.append('flush ' + Path(os.readlink(f'/proc/self/fd/{file}')).name)
        fsync(file)

    def watch_rename(source: Path, target: Path) -> None:
        done.append('rename ' + Path(target).name)
        (rename if Path(source).is_dir() else replace)(source, target)

    if not Path('/proc/self/fd').is_dir():
        pytest.skip('needs /proc to name open files')
    monkeypatch.setattr(os, 'fsync', watch_fsync)
    monkeypatch.setattr(os, 'rename', watch_rename)
    monkeypatch.setattr(os, 'replace', watch_rename)
    with atomic.atomic_folder(tmp_path / 'set') as folder:
        (folder / 'a').write_text('a')  # without a flush of its own
        (folder / 'deep').mkdir()
        (folder / 'deep' / 'b').write_text('b')
    assert set(done[:4]) == {'flush a', 'flush b', 'flush deep', f'flush {folder.name}'}
    assert done[4:] == ['rename set', f'flush {tmp_path.name}']
    done.clear()
    atomic.write_text(tmp_path / 'x', 'x')
    assert done[0].startswith('flush .x.tmp-')
    assert done[1:] == ['rename x', f'flush {tmp_path.name}']
