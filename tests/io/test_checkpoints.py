"""A checkpoint round trip is bitwise exact; damaged or too new ones are refused; all ranks write a checkpoint, or none."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import vq
from tests.io.samples import ThreadRanks, hidden, is_same, same, sample
from tests.ranks import GlooPool
from vq.core.errors import RunFailure, UserError
from vq.io import checkpoints
from vq.io.checkpoints import Checkpoint


def test_it_comes_back(tmp_path: Path) -> None:
    given = sample(20, 2.0)
    path = checkpoints.save(tmp_path, given)
    assert path == tmp_path / 'iter_20'
    assert sorted(os.listdir(path)) == [
        'COMPLETE',
        'config.json',
        'ema.safetensors',
        'meta.json',
        'model.safetensors',
        'rank_0.pt',
        'spec.json',
        'training.pt',
    ]
    assert (tmp_path / 'latest').read_text() == 'iter_20\n'
    found = checkpoints.load(path)
    assert same(found, given)
    assert found.world_size == 1
    assert found.versions['vq'] == vq.__version__
    assert found.versions['torch'] == torch.__version__
    assert torch.equal(load_file(path / 'model.safetensors')['codes'], given.model['codes'])
    assert (path / 'config.json').read_text() == given.config_text
    torch.load(path / 'training.pt', weights_only=True)


def test_the_marker_lists_every_file_with_size_and_digest(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, sample(20, 2.0))
    marker = json.loads((path / 'COMPLETE').read_text())
    assert marker['format_version'] == checkpoints.FORMAT_VERSION == 2
    assert sorted([*marker['files'], 'COMPLETE']) == sorted(os.listdir(path))
    for name, entry in marker['files'].items():
        data = (path / name).read_bytes()
        assert entry == {'size': len(data), 'sha256': hashlib.sha256(data).hexdigest()}


def test_without_ema_and_rank_state(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, Checkpoint(step=0, model={}))
    found = checkpoints.load(path)
    assert (found.model, found.ema, found.per_rank, found.training, found.seed) == ({}, None, None, {}, None)


def test_the_folder_may_be_named_with_the_step(tmp_path: Path) -> None:
    assert checkpoints.save(tmp_path / 'iter_20', sample(20, 2.0)) == tmp_path / 'iter_20'
    assert checkpoints.latest(tmp_path) == tmp_path / 'iter_20'


@pytest.mark.parametrize(
    'name', ['model.safetensors', 'ema.safetensors', 'training.pt', 'rank_0.pt', 'config.json', 'spec.json', 'meta.json']
)
def test_a_flipped_bit_or_a_cut_file_is_found(tmp_path: Path, name: str) -> None:
    path = checkpoints.save(tmp_path, sample(20, 2.0))
    checkpoints.save(tmp_path, sample(10, 1.0))
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 4
    (path / name).write_bytes(data)
    with pytest.raises(UserError, match=f'{name} is damaged: its SHA-256') as caught:
        checkpoints.load(path)
    assert caught.value.exit_code == 2
    (path / name).write_bytes(data[:-1])
    with pytest.raises(UserError, match=rf'iter_20 is not a complete checkpoint: {name} has \d+ bytes instead') as caught:
        checkpoints.load(path)
    assert caught.value.hint == 'Complete ones there: iter_10.'
    (path / name).unlink()
    with pytest.raises(UserError, match=f'{name} is missing'):
        checkpoints.load(path)


def test_a_missing_checkpoint_and_a_missing_marker(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, sample(20, 2.0))
    with pytest.raises(UserError, match=r'there is no checkpoint .*iter_30') as caught:
        checkpoints.load(tmp_path / 'iter_30')
    assert caught.value.hint == 'Complete ones there: iter_20.'
    (path / 'COMPLETE').unlink()
    with pytest.raises(UserError, match='no COMPLETE file'):
        checkpoints.load(path)


def test_damage_that_keeps_size_and_digest_unchecked_is_still_an_error_for_users(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, sample(20, 2.0))
    for name in ('training.pt', 'model.safetensors', 'meta.json'):
        data = (path / name).read_bytes()
        (path / name).write_bytes(b'\xff' * len(data))
        with pytest.raises(UserError, match=r'damaged|refused'):
            checkpoints.load(path, verify=False)
        (path / name).write_bytes(data)
    assert is_same(path, sample(20, 2.0))


def test_state_that_would_not_load_safely_is_refused_before_anything_is_replaced(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, sample(20, 2.0))
    with pytest.raises(TypeError, match=r'training\.callbacks\[0\] is a builtins\.set'):
        checkpoints.save(tmp_path, Checkpoint(step=20, model={}, training={'callbacks': [{1}]}))
    assert is_same(tmp_path / 'iter_20', sample(20, 2.0))
    assert not hidden(tmp_path)


def test_frozen_parts_stay_out_by_whole_names() -> None:
    class Task(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.teacher, self.teacher2, self.head = nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1, bias=False)

        def frozen_prefixes(self) -> tuple[str, ...]:
            return ('teacher', 'head.weight')

    assert sorted(checkpoints.model_state(Task())) == ['teacher2.bias', 'teacher2.weight']
    assert len(checkpoints.model_state(nn.Linear(1, 1))) == 2


def test_another_frozen_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / 'vgg.pth'
    file.write_bytes(b'weights')
    given = sample(20, 2.0)
    given.frozen = {str(file): hashlib.sha256(b'weights').hexdigest()}
    path = checkpoints.save(tmp_path, given)
    assert checkpoints.load(path).frozen == given.frozen
    file.write_bytes(b'another')
    with pytest.raises(UserError, match=r'was trained with another .*vgg\.pth: SHA-256 \w{12} then, \w{12} now'):
        checkpoints.load(path)
    file.unlink()
    checkpoints.load(path)  # a missing one is named where it is loaded


# format versions


def make_by_hand(path: Path, version: int) -> None:
    """A checkpoint written without our code: format 1 as documented, or with another version number."""
    path.mkdir(parents=True)
    save_file({'w': torch.tensor([1.0, 2.0])}, path / 'model.safetensors')
    torch.save({'step': 3}, path / 'training.pt')
    (path / 'config.py').write_text('x = 1\n')
    meta: dict[str, Any] = {'format_version': version, 'step': 3, 'samples_seen': 12, 'world_size': 1, 'seed': 5}
    (path / 'meta.json').write_text(json.dumps({**meta, 'versions': {}, 'frozen': {}, 'extra': {}}))
    files = {
        file.name: {'size': file.stat().st_size, 'sha256': hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in path.iterdir()
    }
    (path / 'COMPLETE').write_text(json.dumps({'format_version': version, 'files': files}))


def test_format_1_stays_readable(tmp_path: Path) -> None:
    make_by_hand(tmp_path / 'iter_3', 1)
    found = checkpoints.load(tmp_path / 'iter_3')
    assert (found.step, found.samples_seen, found.seed, found.config_text) == (3, 12, 5, 'x = 1\n')
    assert found.model['w'].tolist() == [1.0, 2.0]
    assert found.training == {'step': 3}


def test_older_formats_migrate_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_by_hand(tmp_path / 'iter_3', 1)
    order = []

    def rename_weight(contents: dict[str, Any]) -> dict[str, Any]:
        order.append(1)
        return {**contents, 'model': {'codebook.' + name: value for name, value in contents['model'].items()}}

    def count_images(contents: dict[str, Any]) -> dict[str, Any]:
        order.append(2)
        contents['meta']['samples_seen'] *= 2
        return contents

    monkeypatch.setattr(checkpoints, 'FORMAT_VERSION', 3)
    monkeypatch.setattr(checkpoints, 'MIGRATIONS', {})
    with pytest.raises(UserError, match='format 1, which is too old'):
        checkpoints.load(tmp_path / 'iter_3')
    monkeypatch.setattr(checkpoints, 'MIGRATIONS', {1: rename_weight, 2: count_images})
    found = checkpoints.load(tmp_path / 'iter_3')
    assert order == [1, 2]
    assert list(found.model) == ['codebook.w']
    assert found.samples_seen == 24


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    make_by_hand(tmp_path / 'iter_3', 3)
    with pytest.raises(UserError, match=r'has checkpoint format 3, and this vq .* reads up to 2'):
        checkpoints.load(tmp_path / 'iter_3')


# ranks


def test_every_rank_writes_its_own(tmp_path: Path) -> None:
    ranks = ThreadRanks(3)
    paths = ranks.run(lambda rank: checkpoints.save(tmp_path, sample(20, 2.0, rank=rank)))
    assert paths == [tmp_path / 'iter_20'] * 3
    for rank in range(3):
        found = checkpoints.load(tmp_path / 'iter_20', rank=rank)
        assert same(found, sample(20, 2.0, rank=rank))
        assert found.world_size == 3
    assert checkpoints.load(tmp_path / 'iter_20', rank=3).per_rank is None  # more ranks than it was saved by


@pytest.mark.parametrize('failing', [0, 1])
def test_an_error_on_one_rank_reaches_all_and_keeps_the_old(tmp_path: Path, failing: int) -> None:
    checkpoints.save(tmp_path, sample(20, 1.0))

    def save(rank: int) -> Path:
        checkpoint = sample(20, 2.0, rank=rank)
        if rank == failing:
            checkpoint.per_rank = {'bad': {1}}
        return checkpoints.save(tmp_path, checkpoint)

    errors = ThreadRanks(2).run(save)
    assert isinstance(errors[failing], TypeError)
    assert isinstance(errors[1 - failing], RunFailure)
    assert f'rank {failing} failed while writing' in errors[1 - failing].message
    assert 'per_rank.bad is a builtins.set' in errors[1 - failing].message
    assert is_same(tmp_path / 'iter_20', sample(20, 1.0))
    assert not hidden(tmp_path)


def test_an_error_of_the_first_rank_alone_reaches_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('vq.io.atomic.commit', full)
    errors = ThreadRanks(2).run(lambda rank: checkpoints.save(tmp_path, sample(20, 2.0, rank=rank)))
    assert [type(error) for error in errors] == [RunFailure, RunFailure]
    assert all('disk full while writing' in error.message for error in errors)
    assert errors[1].message.startswith('rank 0 failed while completing')
    assert os.listdir(tmp_path) == []


def save_and_load(folder: str) -> tuple[int, list[int]]:
    from vq.core import collectives

    path = checkpoints.save(Path(folder), sample(20, 2.0, rank=collectives.rank()))
    collectives.barrier()
    found = checkpoints.load(path)
    assert found.per_rank is not None
    return found.world_size, found.per_rank['random']['torch'].tolist()


def fail_on_the_second_rank(folder: str) -> str:
    from vq.core import collectives

    checkpoint = sample(30, 2.0)
    if collectives.rank() == 1:
        checkpoint.per_rank = {'bad': len}
    try:
        checkpoints.save(Path(folder), checkpoint)
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    return 'no error'


@pytest.mark.slow
def test_two_processes_save_one_checkpoint(tmp_path: Path, gloo_pool: GlooPool) -> None:
    found = gloo_pool.run(save_and_load, str(tmp_path))
    assert found == [(2, list(range(9))), (2, list(range(1, 10)))]
    told = gloo_pool.run(fail_on_the_second_rank, str(tmp_path))
    assert told[0].startswith('RunFailure: rank 1 failed while writing')
    assert told[1].startswith('TypeError: per_rank.bad')
    assert sorted(os.listdir(tmp_path)) == ['iter_20', 'latest']
