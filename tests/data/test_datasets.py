"""Datasets: their samples, order, ids and classes."""

from __future__ import annotations

import collections
import functools
import hashlib
import json
import pickle
import random
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from vq.core.errors import ConfigError
from vq.core.random import python_stream
from vq.data import loading
from vq.data.collate import collate
from vq.data.datasets.digits import DigitsDataset, shares
from vq.data.datasets.folder import FolderDataset
from vq.data.datasets.imagenet import ImageNetDataset
from vq.data.decode import BadImage
from vq.data.names import Names


@pytest.fixture
def tree(tmp_path, make_picture):
    """Write images by their relative paths."""

    def write(*paths: str) -> Path:
        for number, path in enumerate(paths):
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(make_picture(6, 8, seed=number)).save(file)
        return tmp_path

    return write


def ids(dataset) -> list[str]:
    return [dataset.id_of(index) for index in range(len(dataset))]


def test_names_keep_any_text():
    names = ['a', '', 'ä/日本.png', 'x' * 300]
    table = pickle.loads(pickle.dumps(Names(names)))
    assert list(table) == names
    assert len(table) == 4
    for outside in (-1, 4):
        with pytest.raises(IndexError):
            table[outside]
    assert list(Names([])) == []


# digits


def test_digits_are_split_once_and_for_all():
    splits = {split: DigitsDataset(split) for split in ('train', 'validation', 'test')}
    assert {split: len(dataset) for split, dataset in splits.items()} == {'train': 1437, 'validation': 180, 'test': 180}
    everything = [name for dataset in splits.values() for name in ids(dataset)]
    assert sorted(everything) == [f'digits/{index:04d}' for index in range(1797)]
    fractions = {
        split: np.bincount([dataset.category_of(i) for i in range(len(dataset))]) / np.bincount(load_digits().target)
        for split, dataset in splits.items()
    }
    assert np.abs(fractions['train'] - 1437 / 1797).max() < 0.01
    assert np.abs(fractions['test'] - 180 / 1797).max() < 0.01
    digest = hashlib.sha256('\n'.join(ids(splits['validation'])).encode()).hexdigest()
    assert digest[:16] == 'a759e4d032807c99'  # pinned: figures of published runs depend on it


def test_digits_have_scikit_learns_pixels_and_labels():
    data = load_digits()
    dataset = DigitsDataset('test', image_size=8)
    assert dataset.categories == tuple('0123456789')
    for index in range(0, 180, 13):
        original = int(dataset.id_of(index).removeprefix('digits/'))
        sample = dataset.load(index, random.Random(0))
        exact = np.array([[int(value * 255 / 16 + 0.5) for value in line] for line in data.images[original]])
        for channel in range(3):
            np.testing.assert_array_equal(sample['image'][:, :, channel], exact)
        assert sample['category'] == data.target[original]
        assert sample['path'] is None


def test_digits_are_enlarged_bilinearly():
    small, large = DigitsDataset('train', 8), DigitsDataset('train', 32)
    places = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    for index in (0, 700):
        grey = small.read(index)[:, :, 0].astype(float)
        across = np.stack([np.interp(places, np.arange(8), line) for line in grey])
        exact = np.stack([np.interp(places, np.arange(8), line) for line in across.T]).T
        assert large.read(index).shape == (32, 32, 3)
        assert np.abs(large.read(index)[:, :, 2] - exact).max() <= 1.01  # Pillow rounds twice


def test_shares_add_up_and_stay_within_one():
    for counts in ([178, 182, 177, 183, 181, 182, 181, 179, 174, 180], [1, 1, 1], [5, 0, 7]):
        given = shares(np.array(counts), sum(counts) // 3)
        assert given.sum() == sum(counts) // 3
        assert np.abs(given - np.array(counts) / 3).max() < 1


def test_digits_refuse_an_unknown_split():
    with pytest.raises(ConfigError, match="no split 'val'"):
        DigitsDataset('val')


# folders


def test_folder_lists_all_suffixes_nested_sorted_and_nothing_else(tree):
    root = tree(
        'train/b/2.png',
        'train/b/deep/er/1.JPEG',
        'train/a/x.JPG',
        'train/a/y.jpeg',
        'train/a/z.bmp',
        'train/a/w.WEBP',
        'train/a/.hidden.png',
        'train/.cache/q.png',
        'train/__MACOSX/a/x.png',
        'work_dirs/run/picture.png',
        'train/a/work_dirs/run/picture.png',
        'validation/a/v.png',
    )
    (root / 'train/a/notes.txt').write_text('no image')
    (root / 'train/a/picture.gif').write_text('not listed')
    dataset = FolderDataset(root)
    assert ids(dataset) == [
        'train/a/w.WEBP',
        'train/a/x.JPG',
        'train/a/y.jpeg',
        'train/a/z.bmp',
        'train/b/2.png',
        'train/b/deep/er/1.JPEG',
    ]
    assert dataset.categories == ('a', 'b')
    assert [dataset.category_of(index) for index in range(6)] == [0, 0, 0, 0, 1, 1]
    assert dataset.path_of(4) == str(root / 'train/b/2.png')
    sample = dataset.load(4, random.Random(0))
    assert (sample['id'], sample['category'], sample['path']) == ('train/b/2.png', 1, str(root / 'train/b/2.png'))
    assert sample['image'].shape == (6, 8, 3)
    assert FolderDataset(root, classes=False).categories is None
    assert FolderDataset(root, classes=False).category_of(0) is None
    assert (dataset.name, FolderDataset(root, name='cats').name) == (root.name, 'cats')


@pytest.mark.parametrize('folder', ['val', 'validation'])
def test_splits_share_class_numbers_even_where_one_lacks_a_class(tree, folder):
    root = tree('train/a/1.png', 'train/b/1.png', 'train/c/1.png', f'{folder}/c/1.png', f'{folder}/d/2.png', 'test/a/3.png')
    for split, numbers in (('train', [0, 1, 2]), ('validation', [2, 3]), ('val', [2, 3]), ('test', [0])):
        dataset = FolderDataset(root, split)
        assert dataset.split in ('train', 'validation', 'test')
        assert dataset.categories == ('a', 'b', 'c', 'd')
        assert [dataset.category_of(index) for index in range(len(dataset))] == numbers


def test_a_root_without_split_folders_is_the_train_split(tree):
    root = tree('a/1.png', 'b/2.png')
    assert ids(FolderDataset(root)) == ['a/1.png', 'b/2.png']
    assert FolderDataset(root).categories == ('a', 'b')
    with pytest.raises(ConfigError, match="no split folders, so all of it is the split 'train'"):
        len(FolderDataset(root, 'validation'))


def test_flat_folders_have_no_classes_and_half_flat_ones_are_refused(tree):
    root = tree('1.png', '2.png')
    assert FolderDataset(root).categories is None
    assert FolderDataset(root).category_of(0) is None
    tree('a/3.png')
    with pytest.raises(ConfigError, match=r'1\.png is not in a class folder'):
        len(FolderDataset(root))
    assert len(FolderDataset(root, classes=False)) == 3


def test_constructor_reads_nothing(tmp_path):
    dataset = FolderDataset(tmp_path / 'later')
    with pytest.raises(ConfigError, match='later does not exist'):
        len(dataset)
    (tmp_path / 'later').mkdir()
    with pytest.raises(ConfigError, match='only: nothing'):
        len(dataset)
    ImageNetDataset(tmp_path / 'none')


def test_empty_folder_says_what_was_looked_for_and_what_was_there(tree):
    root = tree('train/a/1.png')
    (root / 'test/deep').mkdir(parents=True)
    for name in ('a.txt', 'b.txt', 'c.gif', 'README'):
        (root / 'test' / name).write_text('')
    with pytest.raises(ConfigError) as raised:
        len(FolderDataset(root, 'test'))
    for part in (str(root / 'test'), '.webp', '2 x .txt', '1 x .gif', '1 x no suffix', '1 x folder'):
        assert part in raised.value.message
    assert 'Set root' in raised.value.hint


def test_missing_double_and_unknown_splits(tree):
    root = tree('train/a/1.png', 'test/a/1.png')
    with pytest.raises(ConfigError, match="no folder for the split 'validation'; it holds: test, train"):
        len(FolderDataset(root, 'validation'))
    tree('val/a/1.png', 'validation/a/2.png')
    with pytest.raises(ConfigError, match='two folders for the split validation'):
        len(FolderDataset(root, 'val'))
    with pytest.raises(ConfigError, match="no split 'dev'"):
        len(FolderDataset(root, 'dev'))


def test_links_are_followed_but_not_in_circles(tree):
    root = tree('store/1.png', 'data/train/a/2.png')
    (root / 'data/train/b').symlink_to(root / 'store')
    (root / 'data/train/a/again').symlink_to(root / 'data/train')
    assert ids(FolderDataset(root / 'data')) == ['train/a/2.png', 'train/b/1.png']


def test_a_name_that_is_not_utf8_is_named(tree):
    root = tree('train/a/1.png', 'train/a/2.png')
    (root / 'train/a/2.png').rename(Path(str(root / 'train/a') + '/bad\udcff.png'))
    with pytest.raises(ConfigError, match=r'bad.*is not UTF-8'):
        len(FolderDataset(root))


def test_fingerprint_follows_the_names(tree):
    root = tree('train/a/1.png', 'train/a/2.png', 'val/a/1.png')
    first = FolderDataset(root, name='x').fingerprint()
    assert first == FolderDataset(root, name='x').fingerprint()
    assert first == FolderDataset(str(root), name='x', backend='cv2', classes=False).fingerprint()
    assert first != FolderDataset(root, 'val', name='x').fingerprint()
    assert first != FolderDataset(root, name='y').fingerprint()
    (root / 'train/a/2.png').rename(root / 'train/a/3.png')
    assert first != FolderDataset(root, name='x').fingerprint()


def test_bad_images_carry_their_path_and_the_limit_reaches_them(tree):
    root = tree('train/a/1.png')
    with pytest.raises(BadImage, match='over the limit of 47') as raised:
        FolderDataset(root, pixel_limit=47).read(0)
    assert raised.value.path == str(root / 'train/a/1.png')

    def refuse(image, stream):
        raise BadImage('', 'is not to its taste')

    with pytest.raises(BadImage, match=r'1\.png: is not to its taste'):
        FolderDataset(root, transform=refuse).load(0, random.Random(0))


def test_backends_read_the_same(tree):
    root = tree('train/a/1.png', 'train/a/2.jpg')
    for index in (0, 1):
        first, second = (FolderDataset(root, backend=backend).read(index).astype(int) for backend in ('pillow', 'cv2'))
        assert np.abs(first - second).max() <= 3


# ImageNet

SYNSETS = {
    '1': {'WNID': 'n02119789', 'words': 'kit fox', 'num_children': 0},
    '2': {'WNID': 'n02100735', 'words': 'English setter', 'num_children': 0},
    '3': {'WNID': 'n01440764', 'words': 'tench', 'num_children': 0},
    '4': {'WNID': 'n00001740', 'words': 'entity', 'num_children': 3},
}
ANNOTATIONS = [{'image': '9.JPEG', 'synset_id': 1}, {'image': '5.JPEG', 'synset_id': 3}, {'name': '7.JPEG', 'synset_id': 2}]


def annotate(root: Path, entries: typing.Any, synsets: typing.Any = None) -> None:
    (root / 'annotations').mkdir(exist_ok=True)
    (root / 'annotations/val.json').write_text(json.dumps(entries))
    (root / 'synsets.json').write_text(json.dumps(SYNSETS if synsets is None else synsets))


def test_imagenet_with_annotations(tree):
    root = tree('val/n02119789/9.JPEG', 'val/n01440764/5.JPEG', 'val/n02100735/7.JPEG', 'val/n01440764/unlisted.JPEG')
    annotate(root, ANNOTATIONS)
    dataset = ImageNetDataset(root, 'val')
    assert (dataset.name, dataset.split) == ('imagenet', 'validation')
    assert ids(dataset) == ['val/n02119789/9.JPEG', 'val/n01440764/5.JPEG', 'val/n02100735/7.JPEG']
    assert dataset.categories == ('tench', 'English setter', 'kit fox')  # by WNID, without folders that are not classes
    assert [dataset.category_of(index) for index in range(3)] == [2, 0, 1]
    assert dataset.load(1, random.Random(0))['image'].shape == (6, 8, 3)
    by_synset = ImageNetDataset(root, 'validation', class_order='synset')
    assert by_synset.categories == ('kit fox', 'English setter', 'tench')
    assert [by_synset.category_of(index) for index in range(3)] == [0, 2, 1]


def test_imagenet_in_plain_folders_numbers_classes_alike(tree):
    root = tree('train/n02119789/a.JPEG', 'train/n01440764/b.JPEG', 'train/n02100735/c.JPEG', 'val/n02119789/d.JPEG')
    train, validation = ImageNetDataset(root), ImageNetDataset(root, 'validation')
    assert train.categories == validation.categories == ('n01440764', 'n02100735', 'n02119789')
    assert [train.category_of(index) for index in range(3)] == [0, 1, 2]
    assert (ids(validation), validation.category_of(0)) == (['val/n02119789/d.JPEG'], 2)
    with pytest.raises(ConfigError, match="class_order='synset' needs"):
        len(ImageNetDataset(root, class_order='synset'))


@pytest.mark.parametrize(
    ('entries', 'synsets', 'words'),
    [
        ([], None, 'lists no image'),
        ({}, None, 'holds a dict, not a list'),
        ([{'image': '9.JPEG', 'synset_id': 8}], None, 'not an image of a known class'),
        ([{'image': '../../9.JPEG', 'synset_id': 1}], None, 'not an image of a known class'),
        ([{'synset_id': 1}], None, 'not an image of a known class'),
        (ANNOTATIONS, {'1': {'words': 'kit fox'}}, 'without a number or a WNID'),
        (ANNOTATIONS, {'fox': {'WNID': 'n1'}}, 'without a number or a WNID'),
    ],
)
def test_imagenet_refuses_annotations_that_do_not_fit(tmp_path, entries, synsets, words):
    annotate(tmp_path, entries, synsets)
    with pytest.raises(ConfigError, match=words):
        len(ImageNetDataset(tmp_path, 'val'))


def test_imagenet_says_which_file_is_missing_or_broken(tree):
    root = tree('val/1.JPEG')
    with pytest.raises(ConfigError, match=r'1\.JPEG should lie in val/WNID'):
        len(ImageNetDataset(root, 'val'))
    annotate(root, ANNOTATIONS)
    (root / 'synsets.json').unlink()
    with pytest.raises(ConfigError, match=r'synsets\.json cannot be read'):
        len(ImageNetDataset(root, 'val'))
    (root / 'synsets.json').write_text('{')
    with pytest.raises(ConfigError, match=r'synsets\.json is not JSON'):
        len(ImageNetDataset(root, 'val'))
    with pytest.raises(ConfigError, match="no split 'test'"):
        ImageNetDataset(root, 'test')


def test_ids_are_unique_in_every_dataset(tree):
    root = tree('train/a/1.png', 'train/a/1.jpg', 'train/b/1.png')
    for dataset in (FolderDataset(root), DigitsDataset()):
        assert max(collections.Counter(ids(dataset)).values()) == 1


def test_streams_are_made_only_for_datasets_that_draw(monkeypatch):
    class Shifted(DigitsDataset):
        def apply(self, sample, stream):
            stream.random()
            return sample

    turned = DigitsDataset('validation', transform=lambda sample, stream: sample)
    assert not DigitsDataset('validation').draws and turned.draws and Shifted('validation').draws
    made = []
    monkeypatch.setattr(loading, 'python_stream', lambda *parts: made.append(parts) or python_stream(*parts))
    for dataset, expected in ((DigitsDataset('validation'), 0), (Shifted('validation'), 4)):
        made.clear()
        loading.Fetcher(dataset, 0, True, False).__getitems__([(0, index) for index in range(4)])
        assert len(made) == expected


@pytest.mark.parametrize('size', [8, 32, (24, 40)])
def test_digits_come_in_batches_as_they_come_one_by_one(size):
    dataset, wanted = DigitsDataset('validation', image_size=size), [5, 0, 179, 5]
    found = dataset.load_batch(wanted)
    expected = collate([dataset.load(index, random.Random(0)) for index in wanted])
    assert found is not None and torch.equal(found.image, expected.image) and found.image.is_contiguous()
    assert found.id == expected.id and torch.equal(found.key, expected.key)
    assert torch.equal(found.category, expected.category) and found.category.dtype == expected.category.dtype
    assert {name for name, value in vars(found).items() if value is not None} == {
        name for name, value in vars(expected).items() if value is not None
    }


def test_digits_of_a_subclass_or_with_a_transform_come_one_by_one():
    class Own(DigitsDataset):
        def category_of(self, index):
            return 0

    assert Own().load_batch([0]) is None
    assert DigitsDataset(transform=functools.partial(lambda image: image)).load_batch([0]) is None
    assert DigitsDataset(image_size=128).load_batch([0]) is None
