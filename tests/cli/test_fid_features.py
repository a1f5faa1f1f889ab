"""``vq.fid --features``: with and without a file, and before other words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.runners.support import commands_here
from vq.cli import fid


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        (['digits', '--features', 'f.npz', '--train'], ['digits', '--features=f.npz', '--train']),
        (['digits', '--features', '.a=1'], ['digits', '--features=', '.a=1']),
        (['--features', 'digits'], ['--features=', 'digits']),
        (['digits', '--features=f.npz', 'g.npz'], ['digits', '--features=f.npz', 'g.npz']),
        (['digits', '--features'], ['digits', '--features=']),
    ],
)
def test_only_an_npz_file_belongs_to_the_flag(words: list[str], expected: list[str]) -> None:
    assert fid.joined(words) == expected


def test_the_file_has_features_ids_and_what_made_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with commands_here():
        assert fid.main(['digits', '--features', 'out.npz', '.dataloader.batch_size=64']) == 0
        assert fid.main(['digits', '--features=out.txt']) == 2
    assert 'FILE.npz' in capsys.readouterr().err
    with np.load('out.npz', allow_pickle=False) as file:
        assert sorted(file.files) == ['features', 'ids', 'vq'] and file['features'].dtype == np.float32
        assert len(file['features']) == len(set(file['ids'].tolist())) == 180
        assert 'random weights' in str(file['vq']) and '"network": "SmallFeatures"' in str(file['vq'])
