"""Unpacking: hostile archives are refused before anything is written, and an interrupted call goes on."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from tests.data.prepare.miniatures import archive
from vq.core.errors import RunFailure, UserError
from vq.data.prepare import unpack as unpacking
from vq.data.prepare.unpack import unpack
from vq.data.prepare.work import Work, alone


class Counted:
    def advance(self, count: int = 1) -> None: ...


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path, tmp_path / 'set', print, lambda what, total, unit: contextlib.nullcontext(Counted()))


def stored(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / 'a.zip').write_bytes(data)
    return tmp_path / 'a.zip'


def linked() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as opened:
        info = zipfile.ZipInfo('a')
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(info, '/etc')
        opened.writestr('a/b', b'x')
    return buffer.getvalue()


def twice() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as opened:
        opened.writestr('a', b'x')
        with pytest.warns(UserWarning, match='Duplicate'):
            opened.writestr('a', b'y')
    return buffer.getvalue()


def encrypted() -> bytes:
    data = bytearray(archive({'a': b'x'}))
    for mark, place in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):
        data[data.index(mark) + place] |= 1
    return bytes(data)


HOSTILE = {
    'may lead out': [archive({name: b'x'}) for name in ('../a', '/a', 'a/../../b', 'a\\..\\b', 'C:a', 'a//b')],
    'is a link': [linked()],
    'twice': [twice()],
    'is encrypted': [encrypted()],
    'expand to': [archive({f'{n}': bytes(2**20) for n in range(8)})],
}


@pytest.mark.parametrize(('why', 'data'), [(why, data) for why, each in HOSTILE.items() for data in each])
def test_a_hostile_archive_is_refused(why, data, tmp_path, work, monkeypatch):
    monkeypatch.setattr(unpacking, 'FREE', 2**20)
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(UserError, match=why) as caught:
        unpack(stored(tmp_path, data), tmp_path / 'set', work)
    assert caught.value.hint and sorted(tmp_path.rglob('*')) == sorted([*before, tmp_path / 'a.zip'])


def test_a_folder_that_is_a_link_leads_out(tmp_path, work):
    (tmp_path / 'set').mkdir()
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'set/a').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(UserError, match='leads out'):
        unpack(stored(tmp_path, archive({'a/b': b'x'})), tmp_path / 'set', work)
    assert not list((tmp_path / 'elsewhere').iterdir())


@pytest.mark.parametrize(
    'damage', [lambda data: data[:-30], lambda data: b'no zip', lambda data: data.replace(b'12345', b'12346')]
)
def test_a_damaged_archive_is_an_error_that_names_it(damage, tmp_path, work):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as opened:
        opened.writestr('a', b'0123456789')
    with pytest.raises(RunFailure, match=r'a\.zip cannot be unpacked'):
        unpack(stored(tmp_path, damage(buffer.getvalue())), tmp_path / 'set', work)
    assert not (tmp_path / 'set/a').exists()


def test_an_interrupted_call_goes_on(tmp_path, work):
    """What is there with the stated bytes stays; a file of other bytes, a half one and a missing one are written."""
    files = {f'x/{n}': b'%d' % n * 1000 for n in range(5)}
    path, folder = stored(tmp_path, archive(files)), tmp_path / 'set'
    assert unpack(path, folder, work).written == 5
    kept = folder / 'x/0'
    os.utime(kept, (1, 1))
    (folder / 'x/1').unlink()
    (folder / 'x/2').write_bytes(b'2' * 500)
    (folder / 'x/3').write_bytes(b'?' * 1000)
    done = unpack(path, folder, work)
    assert (done.files, done.written, done.size) == (5, 3, 5000) and kept.stat().st_mtime == 1
    assert {name: (folder / name).read_bytes() for name in files} == files


def test_what_is_wanted(tmp_path, work):
    path = stored(tmp_path, archive({'top/a/1': b'1', 'top/ab/2': b'2', 'top/c': b'3', 'a/4': b'4', '__MACOSX/top/a/1': b''}))
    unpack(path, tmp_path / 'set', work, 'top', ('a', 'c'))
    assert sorted(p.relative_to(tmp_path / 'set').as_posix() for p in (tmp_path / 'set').rglob('*') if p.is_file()) == [
        'a/1',
        'c',
    ]
    with pytest.raises(UserError, match='it holds: __MACOSX, a, top'):
        unpack(path, tmp_path / 'set', work, 'other')


def test_two_processes_do_not_prepare_one_folder(tmp_path):
    with alone(tmp_path / 'set'), pytest.raises(RunFailure, match='another process'), alone(tmp_path / 'set'):
        pass
