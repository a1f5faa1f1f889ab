"""The held-out split of folders without split folders."""

from __future__ import annotations

import hashlib
import logging
import unicodedata

import pytest
from PIL import Image

from vq.assembly.same_run import completed
from vq.core.errors import ConfigError
from vq.data.datasets.folder import FolderDataset
from vq.data.held_out import share_for, which_are_held_out
from vq.registries import VQDatasetRegistry

TINY = Image.new('RGB', (4, 4))


def put(root, *paths):
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        TINY.save(file)
    return root


def ids(dataset):
    return [dataset.id_of(index) for index in range(len(dataset))]


def by_hand(path):
    return int(hashlib.sha256(path.encode()).hexdigest()[:16], 16) % 10_000


def test_the_splits_are_disjoint_complete_and_by_the_hash_of_the_path(tmp_path):
    names = [f'{number}.png' for number in range(60)]
    put(tmp_path, *names)
    train, validation = (ids(FolderDataset(tmp_path, split, held_out=0.1)) for split in ('train', 'val'))
    assert validation == sorted(name for name in names if by_hand(name) < 1000)
    assert sorted(train + validation) == sorted(names)
    assert 0 < len(validation) < 15


def test_more_files_move_no_image(tmp_path):
    put(tmp_path, *(f'a/{number}.png' for number in range(40)), 'b/0.png')
    before = set(ids(FolderDataset(tmp_path, 'validation', held_out=0.2)))
    put(tmp_path, *(f'a/0{number}.png' for number in range(40)), *(f'c/{number}.png' for number in range(20)))
    after = set(ids(FolderDataset(tmp_path, 'validation', held_out=0.2)))
    assert {name for name in after if (name.startswith('a/') and name[2] != '0') or name == 'a/0.png'} == before
    larger = set(ids(FolderDataset(tmp_path, 'validation', held_out=0.4)))
    assert after < larger


def test_the_share_is_kept_and_accents_have_one_place():
    paths = [f'x/{number}.jpg' for number in range(20_000)]
    assert abs(which_are_held_out(paths, 0.05).mean() - 0.05) < 0.006  # 4 standard deviations
    for number in range(200):
        name = f'Übersicht {number}é.jpg'
        composed, apart = (unicodedata.normalize(form, name) for form in ('NFC', 'NFD'))
        assert composed != apart
        assert (which_are_held_out([composed, apart], 0.5) == (by_hand(composed) < 5000)).all()


def test_classes_have_the_same_numbers_in_both_splits_and_absent_ones_are_said(tmp_path, caplog):
    names = [*(f'{name}/{number}.png' for name in 'abc' for number in range(12)), 'd/0.png']
    put(tmp_path, *names)
    held = {name[0] for name in names if by_hand(name) < 1000}
    with caplog.at_level(logging.INFO, 'vq'):
        for split in ('train', 'validation'):
            dataset = FolderDataset(tmp_path, split, held_out=0.1)
            assert [dataset.categories[dataset.category_of(index)] for index in range(len(dataset))] == [
                name.split('/')[0] for name in ids(dataset)
            ]
            assert dataset.categories == tuple('abcd')
    first, second = (record.getMessage() for record in caplog.records)
    assert f'{37 - len(ids(dataset))} of its 37 images are to train on' in first
    assert f'{len(ids(dataset))} of its 37 images are held out for validation' in second
    assert held < set('abcd'), 'this test needs a class without held-out images'
    assert f'none of the class {", ".join(sorted(set("abcd") - held))}' in second


def test_split_folders_win(tmp_path):
    put(tmp_path, *(f'train/{number}.png' for number in range(9)))
    assert len(FolderDataset(tmp_path, 'train', held_out=0.5)) == 9
    with pytest.raises(ConfigError, match="no folder for the split 'validation'"):
        len(FolderDataset(tmp_path, 'validation', held_out=0.5))


def test_too_few_images_get_the_share_that_is_enough(tmp_path):
    names = [name for number in range(100) if by_hand(name := f'{number}.png') > 3000][:5]
    put(tmp_path, *names)
    with pytest.raises(ConfigError, match='holds out none of the 5 images') as raised:
        len(FolderDataset(tmp_path, 'validation', held_out=0.05))
    share = share_for(names)
    assert f'Set held_out to {share:g} or more' in raised.value.hint
    assert len(FolderDataset(tmp_path, 'validation', held_out=share)) >= 1
    assert min(map(by_hand, names)) < share * 10_000 <= min(map(by_hand, names)) + 100
    assert share_for(names[:1]) is None
    with pytest.raises(ConfigError, match='holds out all 5 images'):
        len(FolderDataset(tmp_path, held_out=0.9999))


def test_without_the_key_all_of_it_is_train_as_in_old_runs(tmp_path):
    put(tmp_path, *(f'{number}.png' for number in range(30)))
    assert len(FolderDataset(tmp_path)) == 30
    with pytest.raises(ConfigError, match='Set held_out') as raised:
        len(FolderDataset(tmp_path, 'validation'))
    assert "'validation' is empty" in raised.value.message
    with pytest.raises(ConfigError, match="'test' is empty"):
        len(FolderDataset(tmp_path, 'test', held_out=0.1))


def test_the_key_is_a_difference_only_where_it_divides(tmp_path):
    put(tmp_path, 'flat/1.png', 'sorted/train/1.png', 'sorted/val/1.png')
    for name, differ in (('flat', True), ('sorted', False)):
        part = {'type': 'FolderDataset', 'root': str(tmp_path / name)}
        old, new = (completed(VQDatasetRegistry, one, 'dataset') for one in (part, {**part, 'held_out': 0.05}))
        assert (old != new) == differ


@pytest.mark.parametrize('share', [-0.1, 1, 7])
def test_a_share_is_a_fraction(tmp_path, share):
    with pytest.raises(ConfigError, match='held_out is'):
        FolderDataset(tmp_path, held_out=share)
