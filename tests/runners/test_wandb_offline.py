"""Weights & Biases itself, without a network: the files that it keeps of a run that is resumed."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runners.support import commands_here, said_by, write_config
from vq.cli import train
from vq.runners.journal import read

pytestmark = pytest.mark.slow
BLOCK, HEAD = 2**15, 7  # of LevelDB's log format, in which wandb writes


def records(path: Path) -> Iterator[Any]:
    """The records of a file ``run-ID.wandb``."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    assert data[:4] == b':W&B'
    place, parts = HEAD, b''
    while place + HEAD <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEAD:  # no record begins in the last bytes of a block
            place += left
            continue
        checksum, length, kind = struct.unpack_from('<IHB', data, place)
        if kind == 0:
            break
        content = data[place + HEAD : place + HEAD + length]
        assert zlib.crc32(bytes([kind]) + content) & 0xFFFFFFFF == checksum
        place, parts = place + HEAD + length, parts + content
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b''


def history(path: Path) -> dict[int, dict[str, Any]]:
    """Step -> what was logged there."""
    found: dict[int, dict[str, Any]] = {}
    for record in records(path):
        if record.WhichOneof('record_type') == 'history':
            items = {'/'.join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            found.setdefault(record.history.step.num, {}).update(items)
    return found


def run_of(path: Path) -> Any:
    return next(record.run for record in records(path) if record.WhichOneof('record_type') == 'run')


def test_a_resumed_run_keeps_its_id_and_the_steps_of_the_optimizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in dict(MODE='offline', SILENT='true', DISABLE_CODE='true', DISABLE_GIT='true').items():
        monkeypatch.setenv(f'WANDB_{name}', value)
    override = ['--override', '.trainer.callbacks.backends.wandb::mine', '.trainer.callbacks.log.interval:1']
    watch = '.trainer.callbacks.watch:' + repr({'type': 'WatchCallback', 'interval': 2})
    with commands_here(dry=False):
        said_by(capsys, train.main, 'exp/one', 'tiny.py', '--config-options', 'iters:4', *override, watch)
        said_by(capsys, train.main, 'exp/one', 'tiny.py', '--auto-resume', '--config-options', 'iters:6', *override, watch)
    folder = tmp_path / 'work_dirs/exp/one'
    first, second = sorted(folder.glob('wandb/offline-run-*/run-*.wandb'), key=lambda path: min(history(path)))
    runs = [run_of(path) for path in (first, second)]
    assert runs[0].run_id == runs[1].run_id and first.name == second.name == f'run-{runs[0].run_id}.wandb'
    assert [(run.display_name, run.project) for run in runs] == [('exp/one', 'mine')] * 2
    assert [*history(first)] == [1, 2, 3, 4] and [*history(second)] == [5, 6]
    shown = history(first) | history(second)
    for line in read(folder / 'log.jsonl', 'train'):
        assert shown[line['step']]['train/total'] == pytest.approx(line['total'])
    (watched, *_) = read(folder / 'log.jsonl', 'watch')
    name, norm = next(iter(watched['gradient_norm'].items()))
    assert shown[2][f'watch/gradient_norm/{name}'] == pytest.approx(norm)
    assert shown[2][f'gradient/{name}/_type'] == 'histogram' and f'gradient/{name}/_type' not in shown[1]
