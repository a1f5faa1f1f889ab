"""Pipes, devices and endless files that are named like images: neither waited for nor read to the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from vq.core.errors import ConfigError
from vq.data.datasets.folder import FolderDataset
from vq.data.decode import BadImage, decode_image
from vq.data.files import find_images


@pytest.fixture(autouse=True)
def _in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_picture, encode) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError('this took 20 seconds')

    monkeypatch.chdir(tmp_path)
    Path('i').mkdir()
    Path('i/0.png').write_bytes(encode(make_picture(7, 5), 'PNG'))
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize('kind', ['pipe', 'device', 'link to a pipe'])
def test_a_pipe_or_device_among_images(kind: str) -> None:
    if kind == 'pipe':
        os.mkfifo('i/1.png')
    elif kind == 'device':
        os.symlink('/dev/zero', 'i/1.png')
    else:
        os.mkfifo('pipe')
        os.symlink(Path('pipe').absolute(), 'i/1.png')
    with pytest.raises(ConfigError, match=r'1\.png is named like an image, and is a pipe'):
        len(FolderDataset('i'))
    with pytest.raises(BadImage, match='not a regular file'):
        decode_image('i/1.png')


def test_links_to_images_and_to_nothing_stay_in_the_list() -> None:
    os.symlink(Path('i/0.png').absolute(), 'i/1.png')
    os.symlink('nowhere', 'i/2.png')
    assert find_images(Path('i')) == ['0.png', '1.png', '2.png']
    assert decode_image('i/1.png').shape == decode_image('i/0.png').shape
    with pytest.raises(BadImage, match='No such file'):
        decode_image('i/2.png')


def test_a_file_larger_than_any_image() -> None:
    with open('large.png', 'wb') as file:
        file.truncate(10**12)
    with pytest.raises(BadImage, match='at most'):
        decode_image('large.png')


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(BadImage, match='null byte'):
        decode_image('a\0.png')
