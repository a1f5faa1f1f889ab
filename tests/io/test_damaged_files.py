"""Damaged files of runs, checkpoints, results and statistics: a message with the file's name, never a traceback."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.io.samples import same, sample
from vq.cli import results
from vq.cli.images import append_line
from vq.core.errors import ConfigError, UserError
from vq.data.datasets.imagenet import ImageNetDataset
from vq.io import checkpoints, history, pretrained, weights
from vq.io.published import statistics
from vq.metrics.features.reference import read_reference
from vq.runners import journal, resuming
from vq.runners.journal import Journal

NESTED = '[' * 100_000
DAMAGE = [b'', b'{', b'[]', b'5', b'null', b'\xff\xfe\x00', NESTED.encode(), b'{"a": ' + b'9' * 5000 + b'}']


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refuse(action: Callable[[], Any], *words: str) -> None:
    with pytest.raises(UserError) as caught:
        action()
    assert caught.value.exit_code == 2 and caught.value.hint
    assert all(word in caught.value.message for word in words), caught.value.message


# checkpoints


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('run') / 'checkpoints'
    for step in (2, 4):
        checkpoints.save(folder, sample(step, step / 2))
    return folder


@pytest.fixture
def checkpoint(made: Path) -> Path:
    shutil.copytree(made, 'run/checkpoints')
    return Path('run/checkpoints/iter_4')


def change_marker(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    marker = json.loads((path / 'COMPLETE').read_text())
    change(marker)
    (path / 'COMPLETE').write_text(json.dumps(marker))


def reseal(path: Path) -> None:
    """The marker of the files as they are: damage that no digest shows."""
    files = {
        file.name: {'size': file.stat().st_size, 'sha256': hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in path.iterdir()
        if file.name != 'COMPLETE'
    }
    change_marker(path, lambda marker: marker.update(files=files))


@pytest.mark.parametrize(
    'content', [*DAMAGE, b'{"format_version": 2, "files": {}}', b'{"files": {"a": {"size": true}}}', None]
)
def test_a_nested_or_empty_marker(checkpoint: Path, content: bytes | None) -> None:
    (checkpoint / 'COMPLETE').unlink()
    if content is None:
        (checkpoint / 'COMPLETE').mkdir()
    else:
        (checkpoint / 'COMPLETE').write_bytes(content)
    refuse(lambda: checkpoints.load(checkpoint), 'iter_4 is not a complete checkpoint')
    assert history.latest(checkpoint.parent) == checkpoint.parent / 'iter_2'
    assert [step for step, _ in history.list_complete(checkpoint.parent)] == [2]
    assert same(checkpoints.load(checkpoint.parent / 'iter_2'), sample(2, 1.0))


@pytest.mark.parametrize('name', ['../iter_2/meta.json', '/etc/passwd', 'a\0b', '', '.', '..'])
def test_a_marker_names_files_of_its_own_folder_only(checkpoint: Path, name: str) -> None:
    change_marker(checkpoint, lambda marker: marker['files'].update({name: {'size': 5}}))
    refuse(lambda: checkpoints.load(checkpoint), 'iter_4 is not a complete checkpoint')


@pytest.mark.parametrize('name', ['meta.json', 'model.safetensors', 'config.json'])
def test_a_marker_without_a_file_that_is_needed(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    reseal(checkpoint)
    refuse(lambda: checkpoints.load(checkpoint), 'COMPLETE', 'does not list')


META = {'step': 4, 'samples_seen': 16, 'seed': 7, 'frozen': {}, 'extra': {}, 'world_size': 1, 'versions': {}}


@pytest.mark.parametrize(
    'change',
    [{name: ['odd']} for name in META] + [{'frozen': {'a': 5}}, {'frozen': {'\0': 'a'}}, {'step': '4'}, {'world_size': True}],
)
def test_meta_of_other_types(checkpoint: Path, change: dict[str, Any]) -> None:
    (checkpoint / 'meta.json').write_text(json.dumps({**META, **change}))
    reseal(checkpoint)
    refuse(lambda: checkpoints.load(checkpoint), 'meta.json', *change)


@pytest.mark.parametrize('name', ['meta.json', 'config.json', 'spec.json', 'training.pt', 'rank_0.pt', 'model.safetensors'])
@pytest.mark.parametrize('content', DAMAGE, ids=range(len(DAMAGE)))
def test_damage_that_no_digest_shows(checkpoint: Path, name: str, content: bytes) -> None:
    (checkpoint / name).write_bytes(content)
    reseal(checkpoint)
    if name == 'config.json' and content != b'\xff\xfe\x00':
        assert checkpoints.load(checkpoint).config_text == content.decode(), 'the text is read, and judged where it is used'
    else:
        refuse(lambda: checkpoints.load(checkpoint), name)


def test_training_state_that_is_no_dict(checkpoint: Path) -> None:
    torch.save(torch.zeros(3), checkpoint / 'training.pt')
    reseal(checkpoint)
    refuse(lambda: checkpoints.load(checkpoint), 'training.pt', 'Tensor')


@pytest.mark.parametrize('name', ['step', 'samples_seen', 'optimizers', 'callbacks'])
@pytest.mark.parametrize('value', [None, 'odd', [1]])
def test_training_state_without_a_part(name: str, value: Any) -> None:
    state = {'step': 4, 'samples_seen': 16, 'optimizers': {}, 'callbacks': {}, 'scaler': None}
    resuming.check_state(Path('iter_4'), state)
    state[name] = value
    refuse(lambda: resuming.check_state(Path('iter_4'), state), 'training.pt', name)


@pytest.mark.parametrize('content', DAMAGE)
def test_metrics_of_a_checkpoint(checkpoint: Path, content: bytes) -> None:
    (checkpoint / 'metrics.json').write_bytes(content)
    history.note_metrics(checkpoint.parent / 'iter_2', {'l1': 0.5})
    retention = history.Retention(keep_last=1, keep_best=1, best_metric='l1')
    assert not history.prune(checkpoint.parent, retention)
    with pytest.warns(UserWarning, match=r'metrics\.json is damaged'):
        history.note_metrics(checkpoint, {'l1': 0.25})
    assert json.loads((checkpoint / 'metrics.json').read_text()) == {'l1': 0.25}


@pytest.mark.parametrize('value', ['null', '[1]', '"x"', '{}', '1' + '0' * 400])
def test_metrics_that_are_no_numbers_are_no_best(checkpoint: Path, value: str) -> None:
    (checkpoint / 'metrics.json').write_text(f'{{"l1": {value}}}')
    history.note_metrics(checkpoint.parent / 'iter_2', {'l1': 0.5})
    assert not history.prune(checkpoint.parent, history.Retention(keep_last=1, keep_best=1, best_metric='l1'))


@pytest.mark.parametrize('content', [b'\xff', b'iter_' + b'9' * 5000, b'iter_4/../../x', None])
def test_the_pointer_to_the_latest(checkpoint: Path, content: bytes | None) -> None:
    place = checkpoint.parent / 'latest'
    place.unlink()
    place.mkdir() if content is None else place.write_bytes(content)
    assert history.latest(checkpoint.parent) == checkpoint


# the log


LINES = [
    b'{"step": 1, "kind": "train", "l1": 0.5}',
    b'\xff\xfe',
    b'{"step": "2", "kind": "train"}',
    b'{"step": null, "kind": "train"}',
    b'{"step": NaN, "kind": "train"}',
    b'{"step": true, "kind": "train"}',
    b'{"step": 2}',
    b'[1]',
    NESTED.encode(),
    b'{"step": ' + b'9' * 5000 + b', "kind": "train"}',
    b'{"step": 2, "kind": "train", "l1": 0.25}',
    b'{"step": 3, "kind": "train", "l1": 0.125}',
    b'{"step": 3, "ki',
]


def test_a_log_that_is_not_utf8_or_has_odd_steps(caplog: pytest.LogCaptureFixture) -> None:
    Path('log.jsonl').write_bytes(b'\n'.join(LINES))
    assert [record['l1'] for record in journal.read(Path('log.jsonl'), 'train')] == [0.5, 0.25, 0.125]
    with caplog.at_level(logging.WARNING, 'vq'):
        Journal(Path('log.jsonl')).rewind(2)
    assert Path('log.jsonl').read_bytes() == LINES[0] + b'\n' + LINES[10] + b'\n'
    assert 'log.jsonl: 9 damaged lines are left out' in caplog.text


def test_a_log_that_a_kill_cut_off_is_not_called_damaged(caplog: pytest.LogCaptureFixture) -> None:
    Path('log.jsonl').write_bytes(b'\n'.join([LINES[0], LINES[12]]))
    with caplog.at_level(logging.WARNING, 'vq'):
        Journal(Path('log.jsonl')).rewind(2)
    assert Path('log.jsonl').read_bytes() == LINES[0] + b'\n' and not caplog.text


def test_a_folder_in_place_of_the_log() -> None:
    os.mkdir('log.jsonl')
    refuse(lambda: Journal(Path('log.jsonl')).rewind(2), 'log.jsonl')


# results


@pytest.mark.parametrize('content', [*DAMAGE, b'{"measurement": 1}', b'{"results": [1]}'])
def test_results_that_are_damaged_are_measured_again(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    Path('results.json').write_bytes(content)
    with caplog.at_level(logging.WARNING, 'vq'):
        assert results.read_same(Path('results.json'), None, None, []) is None  # type: ignore[arg-type]
    assert 'results.json is damaged' in caplog.text and 'measured again' in caplog.text


def test_a_line_is_appended_to_a_text_that_is_not_utf8() -> None:
    Path('log.txt').write_bytes(b'\xff\n')
    append_line(Path('log.txt'), {'results': {'fid': 1.5}, 'command': 'c'})
    assert Path('log.txt').read_bytes().startswith(b'\xff\n') and b'fid 1.5  c\n' in Path('log.txt').read_bytes()


@pytest.mark.parametrize('content', DAMAGE[1:])
def test_recorded_digests(content: bytes) -> None:
    Path('digests.json').write_bytes(content)
    refuse(lambda: pretrained._recorded(Path()), 'digests.json')


# statistics


MOMENTS: dict[str, Any] = {'mu': np.zeros(3), 'sigma': np.eye(3)}
ABOUT = {'format': 'vq.feature_statistics', 'format_version': 1, 'count': 10}


@pytest.mark.parametrize(
    'change',
    [
        *({'vq': np.array(text)} for text in ('', '{', '[]', '5', NESTED, '9' * 5000)),
        {'vq': np.array(json.dumps({**ABOUT, 'format_version': 'x'}))},
        {'vq': np.array(json.dumps({**ABOUT, 'count': 'x'}))},
        {'vq': np.array(json.dumps({**ABOUT, 'count': -1}))},
        {'mu': np.array(['a', 'b', 'c'])},
        {'mu': np.zeros(())},
        {'mu': np.zeros((3, 3))},
        {'mu': np.zeros(3, bool)},
        {'sigma': np.zeros((3, 4))},
        {'mu': np.zeros(0), 'sigma': np.zeros((0, 0))},
        {'features_pooled': np.array(['a'])},
        {'features_pooled': np.zeros(3)},
        {'mu': np.array([None] * 3, object)},
    ],
)
def test_statistics_of_odd_content(change: dict[str, Any]) -> None:
    np.savez('x.npz', **{**MOMENTS, **change})
    refuse(lambda: read_reference('x.npz'), 'x.npz')


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04', b'PK\x05\x06' + bytes(18), b'\x93NUMPY', b'\x80\x04.'])
def test_statistics_that_are_no_archive(content: bytes) -> None:
    Path('x.npz').write_bytes(content)
    refuse(lambda: read_reference('x.npz'), 'x.npz')


def test_statistics_of_torch() -> None:
    moments = {'mu': torch.ones(3, dtype=torch.bfloat16).requires_grad_(), 'sigma': torch.eye(3)}
    torch.save(moments, 'x.pt')
    assert read_reference('x.pt').moments['pooled'].mean.tolist() == [1.0, 1.0, 1.0]
    for odd in ('a', None, [[1], [1, 2]], {'a': 1}):
        torch.save({**moments, 'mu': odd}, 'x.pt')
        refuse(lambda: read_reference('x.pt'), 'x.pt')


@pytest.mark.parametrize('count', [10**30, torch.tensor(float('nan')), -5, torch.tensor(float('inf'))])
def test_published_statistics_of_an_odd_count(count: Any) -> None:
    torch.save({'mean': torch.zeros(3), 'covariance': torch.eye(3), 'count': count}, 'x.pt')
    refuse(lambda: statistics.convert(Path('x.pt')), 'count')


def test_published_statistics_of_no_feature() -> None:
    torch.save({'mean': torch.zeros(0), 'covariance': torch.zeros(0, 0), 'count': 10}, 'x.pt')
    refuse(lambda: statistics.convert(Path('x.pt')), 'x.pt')


# files that are there and cannot be read


def test_folders_and_circles_in_place_of_files() -> None:
    os.makedirs('m/model.safetensors')
    os.symlink('circle.safetensors', 'circle.safetensors')
    refuse(lambda: weights.read_weights('m'), 'm')
    refuse(lambda: weights.read_weights('circle.safetensors'), 'circle')
    refuse(lambda: weights.sniff(Path('m/model.safetensors')), 'cannot be read')


@pytest.mark.parametrize(
    ('annotations', 'synsets'),
    [
        (NESTED, '{}'),
        ('[5]', '{}'),
        ('[{"image": "a", "synset_id": []}]', '{"1": {"WNID": "n1"}}'),
        ('[{"image": "..", "synset_id": 1}]', '{"1": {"WNID": "n1"}}'),
        ('[{"image": "\\u0000", "synset_id": 1}]', '{"1": {"WNID": "n1"}}'),
        ('[{"image": "\\ud800", "synset_id": 1}]', '{"1": {"WNID": "n1"}}'),
        ('[{"image": "a", "synset_id": 1}]', '{"1": {"WNID": "../n1"}}'),
        ('[{"image": "a", "synset_id": 1}]', '{"\\u00b2": {"WNID": "n1"}}'),
        ('[{"image": "a", "synset_id": 1}]', '{"' + '9' * 5000 + '": {"WNID": "n1"}}'),
    ],
)
def test_annotations_of_imagenet(annotations: str, synsets: str) -> None:
    os.mkdir('annotations')
    Path('annotations/train.json').write_text(annotations)
    Path('synsets.json').write_text(synsets)
    with pytest.raises(ConfigError, match=r'\.json'):
        len(ImageNetDataset('.'))
