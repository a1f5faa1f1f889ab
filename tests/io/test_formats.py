"""Checkpoints of formats that are no longer written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runners.support import assert_same, build_trainer, everything, logged
from tests.runners.test_checkpoint_order import Killed, kill_in
from vq.core.phases import BUILT_IN
from vq.io import checkpoints
from vq.io.digest import file_digest
from vq.io.formats import name_callbacks
from vq.runners.resuming import Resume


def contents(training: Any, per_rank: Any) -> dict[str, Any]:
    return {'training': training, 'per_rank': per_rank, 'model': {'w': 1}}


def test_states_get_the_names_of_their_classes_in_order() -> None:
    pairs = [
        ['AnnealCallback#0', {'a': 0}],
        ['OptimizeCallback#0', {}],
        ['MyCallback#0', {'m': 1}],
        ['AnnealCallback#1', {'a': 1}],
        ['OptimizeCallback#1', {}],
        ['EMACallback#0', {}],
        ['LogCallback#0', {'open': []}],
    ]
    named = {'anneal': {'a': 0}, 'my': {'m': 1}, 'anneal_2': {'a': 1}, 'ema': {}, 'log': {'open': []}}
    found = name_callbacks(contents({'step': 3, 'callbacks': pairs}, {'random': 5, 'callbacks': pairs}))
    assert found == contents({'step': 3, 'callbacks': named}, {'random': 5, 'callbacks': named})
    assert list(found['training']['callbacks']) == list(named)


def test_what_has_no_callbacks_is_left_alone() -> None:
    assert name_callbacks(contents({'step': 3}, None)) == contents({'step': 3}, None)


def make_old(path: Path) -> None:
    """Turn a checkpoint into one of format 1, as it was written then."""
    kinds = {name: kind for kind, (name, _) in BUILT_IN.items()} | {
        'noise': 'NoiseCallback',
        'sample_recorder': 'SampleRecorder',
    }
    marker = json.loads((path / 'COMPLETE').read_text())
    for name in ('training.pt', *(part.name for part in path.glob('rank_*.pt'))):
        state = torch.load(path / name, weights_only=True)
        state['callbacks'] = [['OptimizeCallback#0', {}], *([f'{kinds[n]}#0', s] for n, s in state['callbacks'].items())]
        torch.save(state, path / name)
        marker['files'][name] = {'size': (path / name).stat().st_size, 'sha256': file_digest(path / name)}
    meta = json.loads((path / 'meta.json').read_text())
    (path / 'meta.json').write_text(json.dumps({**meta, 'format_version': 1}))
    marker['files']['meta.json'] = {'size': (path / 'meta.json').stat().st_size, 'sha256': file_digest(path / 'meta.json')}
    (path / 'COMPLETE').write_text(json.dumps({**marker, 'format_version': 1}))


@pytest.mark.slow
@pytest.mark.parametrize('as_list', [False, True])
def test_a_run_goes_on_from_an_old_checkpoint_to_the_same_bits(tmp_path: Path, as_list: bool) -> None:
    """Unfinished sums of the log and counts of the alarm at step 4 are in the state of the rank."""
    parts = [('noise', 'NoiseCallback'), ('ema', 'EMACallback'), ('log', 'LogCallback'), ('alarm', 'CodebookAlarmCallback')]
    listed = [dict(type=kind, **({'interval': 3} if name in ('log', 'alarm') else {})) for name, kind in parts]
    listed += [dict(type='CheckpointCallback', interval=4)]
    overrides = {'.trainer.callbacks': listed} if as_list else {'.trainer.callbacks.alarm.interval': 3}
    straight, first, second = (build_trainer(tmp_path / name, None, overrides) for name in ('straight', 'broken', 'broken'))
    straight.run()
    kill_in(first, 'checkpoint', 'inspect', 4)
    with pytest.raises(Killed):
        first.run()
    path = first.work_dir / 'checkpoints' / 'iter_4'
    make_old(path)
    old = checkpoints.load(path, rank=0)
    assert list(old.training['callbacks']) == list(old.per_rank['callbacks']) == list(straight.callbacks)
    assert old.per_rank['callbacks']['log']['weighted'] and 'counts' in old.per_rank['callbacks']['alarm']
    second.resumed = Resume(path, old)
    second.run()
    ours, expected = (everything(trainer.work_dir / 'checkpoints/iter_8') for trainer in (second, straight))
    assert_same(ours, expected)
    assert [line for line in logged(second.work_dir) if line['step'] > 4] == [
        line for line in logged(straight.work_dir) if line['step'] > 4
    ]
    assert json.loads((second.work_dir / 'checkpoints/iter_8/COMPLETE').read_text())['format_version'] == 2
