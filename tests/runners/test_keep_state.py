"""Older checkpoints can keep weights only: they are validated and loaded, and never resumed from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runners.support import build_trainer
from vq.core.errors import UserError
from vq.io import checkpoints, history
from vq.io.weights import read_weights


@pytest.fixture
def run(tmp_path: Path) -> Path:
    override = {'.trainer.callbacks.checkpoint.keep_state': 2, '.trainer.callbacks.checkpoint.interval': 2}
    build_trainer(tmp_path, dict(iters=8), override).run()
    return tmp_path / 'run/checkpoints'


def test_older_checkpoints_keep_weights_and_the_newest_two_everything(run: Path) -> None:
    found = [path for _, path in history.list_complete(run)]
    assert [path.name for path in found] == ['iter_2', 'iter_4', 'iter_6', 'iter_8']
    assert [history.is_resumable(path) for path in found] == [False, False, True, True]
    assert {file.name for file in found[0].iterdir()} == {
        *('COMPLETE', 'config.json', 'ema.safetensors', 'meta.json', 'model.safetensors', 'spec.json')
    }
    assert read_weights(found[0], 'ema')[0].keys() == read_weights(found[3], 'ema')[0].keys()
    assert checkpoints.load(found[2]).step == 6
    with pytest.raises(UserError, match='iter_2 keeps only weights') as caught:
        checkpoints.load(found[0])
    assert 'Resume from a newer checkpoint' in caught.value.hint


def test_a_kill_between_marker_and_files_is_made_up_for(run: Path) -> None:
    marker = json.loads((run / 'iter_6/COMPLETE').read_text())
    del marker['files']['training.pt']
    (run / 'iter_6/COMPLETE').write_text(json.dumps(marker))
    assert history.is_complete(run / 'iter_6') and (run / 'iter_6/training.pt').is_file()
    (run / 'iter_6/note of a user.pt').touch()
    history.drop_state(run / 'iter_6')
    assert not (run / 'iter_6/training.pt').exists() and (run / 'iter_6/note of a user.pt').exists()
