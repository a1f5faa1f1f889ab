"""What the log says of the machine: figures of a clock and a driver that are known; what is unknown is absent."""

from __future__ import annotations

import logging
import mmap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vq.runners import usage
from vq.runners.usage import Usage

CPU, GPU = torch.device('cpu'), torch.device('cuda', 0)


class Clock:
    """Ten seconds pass between the first reading and the second, of which two processors are busy for four."""

    def __init__(self) -> None:
        self.wall, self.busy = iter([100.0, 110.0]), iter([50.0, 58.0])

    def perf_counter(self) -> float:
        return next(self.wall)

    def process_time(self) -> float:
        return next(self.busy)


def test_processors_and_memory_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = tmp_path / 'statm'
    pages.write_text('9000 512 100 1 0 800 0\n')
    monkeypatch.setattr(usage, 'STATM', pages)
    monkeypatch.setattr(usage, 'time', Clock())
    monkeypatch.setattr(usage.os, 'sysconf', lambda name: 4096)
    monkeypatch.setattr(usage.resource, 'getrusage', lambda who: SimpleNamespace(ru_maxrss=300 * usage.UNIT))
    assert Usage(CPU).figures() == {'memory_mb': 300, 'resident_mb': 2, 'processors': 0.8}


def test_a_system_without_these_files_has_no_such_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, 'STATM', tmp_path / 'absent')
    assert Usage(CPU).figures().keys() == {'memory_mb', 'processors'}


@pytest.mark.skipif(not usage.STATM.exists(), reason='of Linux')
def test_memory_that_is_taken_shows() -> None:
    before = Usage(CPU).figures()['resident_mb']
    with mmap.mmap(-1, 64 * 2**20) as kept:  # new pages; an allocator can have some that the process holds already
        for place in range(0, len(kept), 2**12):
            kept[place] = 1
        found = Usage(CPU).figures()
    assert 48 <= found['resident_mb'] - before <= 96 and found['memory_mb'] >= found['resident_mb'] - 1


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda device: 700 * 2**20)
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda device: (60 * 2**30, 80 * 2**30))


@pytest.mark.usefixtures('driver')
def test_a_gpu_is_asked_for_its_memory_and_utilization(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'utilization', lambda device: 87)
    found = Usage(GPU).figures()
    assert (found['memory_mb'], found['device_memory'], found['device_utilization']) == (700, 0.25, 0.87)


@pytest.mark.usefixtures('driver')
@pytest.mark.parametrize('error', [ModuleNotFoundError('pynvml does not seem to be installed'), RuntimeError('Not Supported')])
def test_without_an_answer_there_is_no_figure_and_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def refuse(device: torch.device) -> int:
        asked.append(device)
        raise error

    monkeypatch.setattr(torch.cuda, 'utilization', refuse)
    monkeypatch.setattr(logging.getLogger('vq'), 'propagate', True)
    found = Usage(GPU)
    with caplog.at_level(logging.INFO, 'vq'):
        assert 'device_utilization' not in found.figures() and 'device_utilization' not in found.figures()
    lines = {id(record): record.message for record in caplog.records}  # one record can reach several handlers
    assert len(asked) == 1 and [str(error) in line for line in lines.values()] == [True]
