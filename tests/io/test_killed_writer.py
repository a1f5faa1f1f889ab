"""A writer killed at any file operation of a checkpoint leaves a usable one; so does a full disk."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.io.killing import Killer, failing_write
from tests.io.samples import hidden, is_same, same, sample
from vq.core.errors import RunFailure, UserError
from vq.io import checkpoints
from vq.io.checkpoints import Retention

MOST = 2000


@pytest.fixture(autouse=True)
def _quick_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, 'fsync', lambda file: None)  # a killed process leaves what it wrote, flushed or not


def every_kill(
    killer: Killer, template: Path, place: Path, action: Callable[[], object], no_rename: bool, check: Callable[[bool], None]
) -> int:
    """Kill ``action`` at its first, second, ... change, each time on a fresh copy, until it finishes."""
    for count in itertools.count():
        assert count < MOST
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)
        survived = killer.run(action, count, no_rename)
        check(survived)
        if survived:
            return count
    raise AssertionError


@pytest.mark.parametrize('no_rename', [False, pytest.param(True, marks=pytest.mark.slow)], ids=['rename', 'object-store'])
@pytest.mark.parametrize('step', [10, 20], ids=['same-step', 'next-step'])
def test_a_killed_save_leaves_the_old_or_the_new(tmp_path: Path, killer: Killer, step: int, no_rename: bool) -> None:
    old, new = sample(10, 1.0), sample(step, 2.0)
    checkpoints.save(tmp_path / 'template', old)
    folder = tmp_path / 'checkpoints'
    seen = set()

    def check(survived: bool) -> None:
        latest = checkpoints.latest(folder)
        assert latest is not None
        if survived:
            assert latest == folder / f'iter_{step}'
            assert is_same(latest, new)
            assert not hidden(folder)
            return
        for _, path in checkpoints.list_complete(folder):
            found = checkpoints.load(path)
            assert same(found, old) or same(found, new)
            if path == latest:
                stood = found.config_text
        seen.add(stood)
        checkpoints.sweep(folder)  # what the next run does first
        assert not hidden(folder)
        latest = checkpoints.latest(folder)
        assert latest in (folder / 'iter_10', folder / 'iter_20')
        assert (latest / 'config.json').read_text() == stood

    operations = every_kill(killer, tmp_path / 'template', folder, partial(checkpoints.save, folder, new), no_rename, check)
    assert operations > 40  # files, renames, flushes: the hooks saw them
    assert seen == {old.config_text, new.config_text}  # it was killed before and after the moment that counts


@pytest.mark.slow
def test_saving_goes_on_after_each_kill(tmp_path: Path, killer: Killer) -> None:
    checkpoints.save(tmp_path / 'template', sample(10, 1.0))
    folder = tmp_path / 'checkpoints'

    def check(survived: bool) -> None:
        checkpoints.save(folder, sample(10, 3.0))
        assert is_same(folder / 'iter_10', sample(10, 3.0))
        assert sorted(os.listdir(folder)) == ['iter_10', 'latest']

    every_kill(killer, tmp_path / 'template', folder, partial(checkpoints.save, folder, sample(10, 2.0)), False, check)


@pytest.mark.parametrize('no_rename', [False, pytest.param(True, marks=pytest.mark.slow)], ids=['rename', 'object-store'])
def test_a_killed_prune_never_leaves_half_a_checkpoint_that_counts(tmp_path: Path, killer: Killer, no_rename: bool) -> None:
    for step in (10, 20, 30):
        checkpoints.save(tmp_path / 'template', sample(step, float(step)))
    folder = tmp_path / 'checkpoints'

    def check(survived: bool) -> None:
        listed = checkpoints.list_complete(folder)
        assert listed[-1][0] == 30
        for step, path in listed:
            assert is_same(path, sample(step, float(step)))
        assert checkpoints.latest(folder) == folder / 'iter_30'
        checkpoints.sweep(folder)
        assert not hidden(folder)
        if survived:
            assert sorted(os.listdir(folder)) == ['iter_30', 'latest']

    prune = partial(checkpoints.prune, folder, Retention(keep_last=1))
    assert every_kill(killer, tmp_path / 'template', folder, prune, no_rename, check) > 10


def test_all_bytes_go_through_the_write_the_kills_watch(tmp_path: Path) -> None:
    with failing_write(-1, errno.ENOSPC) as sizes:
        path = checkpoints.save(tmp_path, sample(10, 1.0))
    assert sum(sizes) == sum(file.stat().st_size for file in path.iterdir()) + (tmp_path / 'latest').stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize('step', [10, 20], ids=['same-step', 'next-step'])
def test_a_full_disk_at_any_write_leaves_the_old_one(
    tmp_path: Path, step: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('vq.io.writer._BUFFER', 256)
    checkpoints.save(tmp_path, sample(10, 1.0))
    messages = []
    for count in range(MOST):
        with failing_write(count, code):
            try:
                checkpoints.save(tmp_path, sample(step, 2.0))
                break
            except RunFailure as failure:
                messages.append(failure)
        assert not hidden(tmp_path)  # the room is given back
        if failure_at_latest := str(tmp_path / 'latest') in messages[-1].message:
            assert is_same(tmp_path / f'iter_{step}', sample(step, 2.0))  # whole already: only the pointer did not move
        assert is_same(tmp_path / 'iter_10', sample(10, 1.0)) or (failure_at_latest and step == 10)
    assert 20 < len(messages) < MOST
    assert checkpoints.latest(tmp_path) == tmp_path / f'iter_{step}'
    first = messages[0]
    assert first.exit_code == 1
    assert f'while writing {tmp_path / f"iter_{step}"} (needs about ' in first.message
    assert ' MB free); the previous checkpoint is intact' in first.message
    assert first.message.startswith('disk full' if code == errno.ENOSPC else 'disk quota used up')
    assert 'space' in first.hint


def test_a_limit_of_the_system_itself_is_reported_as_a_full_disk(tmp_path: Path) -> None:
    """Not a patched function: the kernel refuses a write in the middle of torch.save."""
    checkpoints.save(tmp_path, sample(10, 1.0))
    child = os.fork()
    if child == 0:
        code = 3
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
            checkpoints.save(tmp_path, sample(20, 2.0))
        except RunFailure as failure:
            code = 7 if 'file size limit reached while writing' in failure.message else 4
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not hidden(tmp_path)
    assert checkpoints.latest(tmp_path) == tmp_path / 'iter_10'


@pytest.mark.parametrize('code', [errno.EACCES, errno.EROFS])
def test_no_permission_is_bad_usage(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = os.mkdir

    def refuse(path: str, *arguments: int) -> None:
        if '.iter_' in str(path):
            raise OSError(code, os.strerror(code), str(path))
        mkdir(path, *arguments)

    monkeypatch.setattr(os, 'mkdir', refuse)
    with pytest.raises(UserError, match=r'no permission to write .*iter_10') as caught:
        checkpoints.save(tmp_path, sample(10, 1.0))
    assert caught.value.exit_code == 2


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_folder_without_write_permission_is_bad_usage(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match='no permission'):
        checkpoints.save(tmp_path, sample(10, 1.0))
    tmp_path.chmod(0o700)
