"""Where weights come from: runs by name, folders, checkpoints, files, and what is said of none of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from vq.io.sources import files_of, find_source, weights_file

from vq.core.errors import UserError
from vq.io.checkpoints import Checkpoint, save


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``work_dirs/mine/a`` with two checkpoints, the later one with an average; a file here and one below ``pretrained``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('VQ_PRETRAINED', raising=False)
    weights = {'w': torch.zeros(2)}
    for step, ema in ((5, None), (10, weights)):
        save(Path('work_dirs/mine/a/checkpoints'), Checkpoint(step=step, model=weights, ema=ema, training={}, config_text=''))
    for name in ('here.safetensors', 'pretrained/there.safetensors'):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b'x')
    return tmp_path


@pytest.mark.parametrize(
    ('name', 'file'),
    [
        ('mine/a', 'work_dirs/mine/a/checkpoints/iter_10/ema.safetensors'),
        ('work_dirs/mine/a', 'work_dirs/mine/a/checkpoints/iter_10/ema.safetensors'),
        ('work_dirs/mine/a/checkpoints/iter_5', 'work_dirs/mine/a/checkpoints/iter_5/model.safetensors'),
        ('mine/a/checkpoints/iter_5', 'work_dirs/mine/a/checkpoints/iter_5/model.safetensors'),
        ('here.safetensors', 'here.safetensors'),
        ('there.safetensors', 'pretrained/there.safetensors'),
    ],
)
def test_what_is_found(runs: Path, name: str, file: str) -> None:
    assert weights_file(find_source(name)) == Path(file) and files_of(name) == [Path(file)]


def test_what_is_not_there(runs: Path) -> None:
    with pytest.raises(UserError, match=r"no run, checkpoint or file 'mine/b'.*mine/a") as caught:
        find_source('mine/b')
    assert 'mine/a' in caught.value.hint
    Path('work_dirs/empty').mkdir()
    with pytest.raises(UserError, match='no complete checkpoint'):
        find_source('empty')
    assert files_of(None) == [] and files_of('mine/b') == [Path('mine/b')]
