"""Datasets made of others."""

from __future__ import annotations

import collections
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from vq.core.config import PyConfig
from vq.core.errors import ConfigError
from vq.core.random import python_stream
from vq.data.datasets.base import ImageDataset
from vq.data.datasets.combined import ConcatDataset, MixedDataset
from vq.data.datasets.digits import DigitsDataset
from vq.data.datasets.selected import RepeatDataset, SplitDataset, SubsetDataset, place_in_split
from vq.data.loading import Loader, LoaderSettings
from vq.data.plan import training_plan
from vq.interfaces import Field
from vq.registries import VQDatasetRegistry

INTERFACE = 'configs/datasets/interface.py'


class Plain(ImageDataset):
    """``count`` grey images; the value is the index."""

    def __init__(self, count: int, name: str = 'plain', categories: Any = None, fields: Mapping[str, Field] = {}) -> None:
        super().__init__(name, 'train')
        self.count, self.categories, self.fields = count, categories, fields

    def __len__(self) -> int:
        return self.count

    def id_of(self, index: int) -> str:
        return f'{index}.png'

    def category_of(self, index: int) -> int | None:
        return index % len(self.categories) if self.categories else None

    def read(self, index: int) -> np.ndarray:
        return np.full((4, 4, 3), index, dtype=np.uint8)


def ids(dataset: ImageDataset) -> list[str]:
    return [dataset.id_of(index) for index in range(len(dataset))]


def test_concat_keeps_order_ids_and_classes_apart() -> None:
    joined = ConcatDataset({'a': Plain(3, categories=('x', 'y')), 'b': Plain(2, categories=('z',))}, classes='joined')
    assert ids(joined) == ['a/0.png', 'a/1.png', 'a/2.png', 'b/0.png', 'b/1.png']
    assert joined.categories == ('a/x', 'a/y', 'b/z')
    samples = [joined.load(index, random.Random(0)) for index in range(5)]
    assert [sample['category'] for sample in samples] == [0, 1, 0, 2, 2] == [joined.category_of(i) for i in range(5)]
    assert [int(sample['image'][0, 0, 0]) for sample in samples] == [0, 1, 2, 0, 1]
    assert [sample['id'] for sample in samples] == ids(joined)
    without = ConcatDataset({'a': Plain(3, categories=('x', 'y')), 'b': Plain(2)}, classes='none')
    assert without.categories is None and without.load(1, random.Random(0))['category'] is None
    with pytest.raises(ConfigError, match=r"'a' and 'b' have different classes: 2 \(x, y\); none"):
        len(ConcatDataset({'a': Plain(3, categories=('x', 'y')), 'b': Plain(2)}))
    with pytest.raises(ConfigError, match='no class names in b'):
        len(ConcatDataset({'a': Plain(3, categories=('x', 'y')), 'b': Plain(2)}, classes='joined'))
    with pytest.raises(IndexError):
        joined.id_of(5)


def test_fields_join_unless_they_contradict() -> None:
    depth, other = Field('stack', moves='mask'), Field('list')
    joined = ConcatDataset({'a': Plain(1, fields={'depth': depth}), 'b': Plain(1, fields={'notes': other})})
    assert joined.fields == {'depth': depth, 'notes': other}
    with pytest.raises(ConfigError, match="'a' and 'b' declare the field depth differently"):
        ConcatDataset({'a': Plain(1, fields={'depth': depth}), 'b': Plain(1, fields={'depth': other})})


@pytest.mark.parametrize(('count', 'held'), [(10, 3), (9, 3), (7, 4), (100, 1), (5, 4)])
@pytest.mark.parametrize('shuffled', [False, True])
def test_split_has_the_places_of_the_stated_arithmetic(count: int, held: int, shuffled: bool) -> None:
    validation = [place_in_split(i, count, held, False, shuffled) for i in range(held)]
    training = [place_in_split(i, count, held, True, shuffled) for i in range(count - held)]
    chunk = count // held
    expected = [i * chunk for i in range(held)] if shuffled else [count - 1 - i for i in range(held)]
    assert validation == expected
    assert training == [place for place in range(count) if place not in expected]  # in order


def test_split_is_a_switch_and_refuses_empty_splits() -> None:
    part = dict(type='SplitDataset', dataset=dict(type='DigitsDataset', split='test'), held_out=0.1, shuffled=True)
    train, validation = (VQDatasetRegistry.build(dict(part, split=split)) for split in ('train', 'val'))
    assert (len(train), len(validation), validation.split) == (162, 18, 'validation')
    assert sorted(ids(train) + ids(validation)) == sorted(ids(DigitsDataset('test')))
    assert validation.categories == tuple('0123456789')
    assert train.fingerprint() != validation.fingerprint()
    for held_out, words in ((180, 'holds out 180 of 180'), (0.001, 'holds out 0 of 180')):
        with pytest.raises(ConfigError, match=words):
            len(SplitDataset(DigitsDataset('test'), held_out=held_out))
    with pytest.raises(ConfigError, match="no split 'test'"):
        SplitDataset(Plain(3), split='test')


def test_subset_and_repeat(tmp_path: Any) -> None:
    assert ids(SubsetDataset(Plain(10), 1, 8, 3)) == ['1.png', '4.png', '7.png']
    listed = tmp_path / 'ids.txt'
    listed.write_text('7.png\r\n2.png\n\n')
    assert ids(SubsetDataset(Plain(10), ids=str(listed))) == ['7.png', '2.png']
    listed.write_text('7.png\n12.png\n')
    with pytest.raises(ConfigError, match=r'1 of 2 ids in .*ids\.txt are not in plain \(train\): 12\.png'):
        len(SubsetDataset(Plain(10), ids=str(listed)))
    with pytest.raises(ConfigError, match='begins at sample 10, and plain has 10'):
        len(SubsetDataset(Plain(10), start=10))
    repeated = RepeatDataset(Plain(2), 3)
    assert ids(repeated) == ['0.png#0', '1.png#0', '0.png#1', '1.png#1', '0.png#2', '1.png#2']
    assert [int(repeated.load(i, random.Random(0))['image'].max()) for i in range(6)] == [0, 1] * 3


def mixed(**settings: Any) -> MixedDataset:
    return MixedDataset({'many': Plain(100), 'two': Plain(2)}, {'many': 3, 'two': 1}, **settings)


def test_a_mixture_has_its_weights_in_every_epoch_and_no_sample_twice() -> None:
    mixture = mixed(count=40)
    assert mixture.quotas == [30, 10]
    seen: collections.Counter[str] = collections.Counter()
    for epoch in range(30):
        found = [mixture.load(index, python_stream('sample', 0, epoch, index))['id'] for index in range(len(mixture))]
        assert len(set(found)) == 40 and sum(name.startswith('many/') for name in found) == 30
        assert sorted(name for name in found if name.startswith('two/')) == sorted(
            f'two/{index}.png#{turn}' for index in range(2) for turn in range(5)
        )
        seen.update(found)
    assert len([name for name in seen if name.startswith('many/')]) == 100  # all of them come, in different epochs
    assert len(set(ids(mixture))) == 40
    assert len(mixed()) == 102
    with pytest.raises(ConfigError, match='of 1 places in an epoch none is left for two'):
        len(mixed(count=1))
    with pytest.raises(ConfigError, match='weights of many, and the datasets are many, two'):
        MixedDataset({'many': Plain(1), 'two': Plain(1)}, {'many': 1})
    with pytest.raises(ConfigError, match='weights must be above 0: a: 0'):
        MixedDataset({'a': Plain(1)}, {'a': 0})


def test_a_mixture_resumes_and_does_not_depend_on_workers() -> None:
    def first(workers: int, batches: int, start: int = 0) -> list[str]:
        plan = training_plan(40, 8, 0, 1, seed=5, start=start)
        with Loader(mixed(count=40), plan, LoaderSettings(8, workers), 5, training=True) as loader:
            return [name for _ in range(batches) for name in next(loader).id]

    whole = first(0, 10)  # two epochs
    assert first(2, 10) == whole
    assert first(0, 3, start=56) == whole[56:]


def test_fingerprints_follow_parts_and_settings() -> None:
    made = [
        ConcatDataset({'a': Plain(3)}),
        ConcatDataset({'b': Plain(3)}),
        ConcatDataset({'a': Plain(4)}),
        SubsetDataset(Plain(4), stop=3),
        SubsetDataset(Plain(4), stop=2),
        mixed(),
        mixed(count=9),
    ]
    assert len({dataset.fingerprint() for dataset in made}) == len(made)
    assert mixed().fingerprint() == mixed().fingerprint()


def test_the_split_of_a_combined_dataset_reaches_its_parts() -> None:
    parts = dict(one=dict(type='DigitsDataset'), two=dict(type='DigitsDataset', split='test'))
    built = VQDatasetRegistry.build(dict(type='ConcatDataset', datasets=parts, split='validation'))
    assert [part.split for part in built.parts.values()] == ['validation', 'test']
    nested = dict(type='SubsetDataset', dataset=dict(type='RepeatDataset', dataset=parts['one'], times=2), split='validation')
    assert VQDatasetRegistry.build(nested).dataset.dataset.split == 'validation'


def test_configs_of_few_images_and_mixtures() -> None:
    few = PyConfig.load(INTERFACE, dataset='few', of='digits', count=4, times=3, image_size=24)
    train, held = (VQDatasetRegistry.build(few[role].dataset) for role in ('trainer', 'validator'))
    assert (len(train), len(held), train.load(5, random.Random(0))['image'].shape) == (12, 4, (24, 24, 3))
    assert {name.split('#')[0] for name in ids(train)} == set(ids(held))
    mixture = PyConfig.load(INTERFACE, dataset='mixture', weights={'digits': 1, 'folder': 2}, image_size=24)
    assert mixture.trainer.dataset.weights == {'digits': 1, 'folder': 2}
    assert mixture.trainer.dataset.transform.type.endswith('.strong')
    built = VQDatasetRegistry.build(mixture.validator.dataset)
    assert [part.split for part in built.parts.values()] == ['validation', 'validation']


def test_a_mixture_of_two_configs_of_one_name_is_refused() -> None:
    """One of them would be left out without a word."""
    with pytest.raises(ConfigError, match='have one name'):
        PyConfig.load('configs/datasets/mixture.py', weights={'digits': 1.0, 'configs/datasets/digits': 1.0})
