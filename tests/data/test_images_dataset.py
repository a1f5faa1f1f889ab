"""Datasets of images to measure: unchanged, by number or by name, in pairs."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import numpy as np
import pytest

from tests.cli.features import pictures, save_folder
from vq.core.errors import UserError
from vq.core.random import python_stream
from vq.data.datasets.images import ImagesDataset, PairsDataset

IMAGES = pictures(0, 7)
STREAM: random.Random = python_stream('test')


def test_a_folder_and_a_file_of_the_same_pictures(tmp_path: Path) -> None:
    save_folder(tmp_path / 'folder', IMAGES)
    np.savez(tmp_path / 'file.npz', IMAGES)
    folder, file = ImagesDataset(tmp_path / 'folder'), ImagesDataset(tmp_path / 'file.npz')
    assert len(folder) == len(file) == 7
    assert [file.id_of(index) for index in (0, 6)] == ['000000', '000006']
    for index in range(7):
        number = int(Path(folder.id_of(index)).stem)
        assert np.array_equal(folder.load(index, STREAM)['image'], IMAGES[number])
        assert np.array_equal(file.load(index, STREAM)['image'], IMAGES[index])


def test_workers_map_the_file_themselves(tmp_path: Path) -> None:
    np.savez(tmp_path / 'file.npz', np.zeros((64, 64, 64, 3), np.uint8))
    dataset = ImagesDataset(tmp_path / 'file.npz')
    assert len(dataset) == 64
    data = pickle.dumps(dataset)
    assert len(data) < 10_000
    assert len(pickle.loads(data)) == 64


def test_other_pictures_are_another_fingerprint(tmp_path: Path) -> None:
    prints = []
    for name, images in (('a', IMAGES), ('b', IMAGES), ('c', 255 - IMAGES)):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / 's.npz', images)
        prints.append(ImagesDataset(tmp_path / name / 's.npz').fingerprint())
    assert prints[0] == prints[1] != prints[2]
    save_folder(tmp_path / 'd', IMAGES)
    save_folder(tmp_path / 'e', IMAGES // 2)  # the same names
    assert ImagesDataset(tmp_path / 'd').fingerprint() != ImagesDataset(tmp_path / 'e').fingerprint()


def test_pairs_go_by_names_without_suffixes(tmp_path: Path) -> None:
    save_folder(tmp_path / 'a', IMAGES)
    save_folder(tmp_path / 'b', 255 - IMAGES, '.webp', lossless=True)
    pairs = PairsDataset(tmp_path / 'a', tmp_path / 'b')
    assert len(pairs) == 7
    batch = pairs.collate([pairs.load(index, STREAM) for index in range(7)])
    assert batch.id[0] == '000' and batch.image.shape == (7, 3, 16, 16)
    assert bool((batch.image + batch.extra['other'] == 255).all())


def test_names_without_a_partner(tmp_path: Path) -> None:
    save_folder(tmp_path / 'a', IMAGES)
    save_folder(tmp_path / 'b', IMAGES[:5])
    with pytest.raises(UserError, match=r'2 only in .*/a \(006, deep/er/005\)') as caught:
        len(PairsDataset(tmp_path / 'a', tmp_path / 'b'))
    assert '--common' in caught.value.hint
    common = PairsDataset(tmp_path / 'a', tmp_path / 'b', common=True)
    assert len(common) == 5 and '2 only in' in common.unmatched()
    np.savez(tmp_path / 'c.npz', IMAGES)
    with pytest.raises(UserError, match='no name in common'):
        len(PairsDataset(tmp_path / 'a', tmp_path / 'c.npz', common=True))


def test_pairs_of_two_sizes_are_named(tmp_path: Path) -> None:
    save_folder(tmp_path / 'a', IMAGES[:1])
    save_folder(tmp_path / 'b', pictures(1, 1, 20))
    with pytest.raises(UserError, match=r"the pair '000' has two sizes: 16 x 16 in .*, 20 x 20"):
        PairsDataset(tmp_path / 'a', tmp_path / 'b').load(0, STREAM)
    for name in 'ab':
        save_folder(tmp_path / 'mixed' / name, IMAGES[:1])
        save_folder(tmp_path / 'mixed' / name / 'more', pictures(1, 1, 20))
    pairs = PairsDataset(tmp_path / 'mixed/a', tmp_path / 'mixed/b')
    with pytest.raises(UserError, match='several sizes in one batch') as caught:
        pairs.collate([pairs.load(index, STREAM) for index in range(2)])
    assert '--batch-size 1' in caught.value.hint


def test_two_files_of_one_name(tmp_path: Path) -> None:
    save_folder(tmp_path / 'a', IMAGES[:1])
    save_folder(tmp_path / 'a', IMAGES[:1], '.bmp')
    with pytest.raises(UserError, match=r'two images of the name 000: 000\.bmp and 000\.png'):
        len(PairsDataset(tmp_path / 'a', tmp_path / 'a'))
