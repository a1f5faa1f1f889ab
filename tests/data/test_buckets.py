"""Aspect-ratio buckets: one size a step, every image once an epoch, the same order however it is read."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.test_packed import quiet
from vq.core.errors import ConfigError, UserError
from vq.data.buckets import bucket_plan, bucket_sizes, buckets_of, sizes_of
from vq.data.datasets.digits import DigitsDataset
from vq.data.datasets.folder import FolderDataset
from vq.data.datasets.packed import PackedDataset
from vq.data.loading import Loader, LoaderSettings, training_batches
from vq.data.packing.rows import Packing
from vq.data.packing.write import pack
from vq.registries import VQTransformRegistry

SHAPES = [(60, 40), (40, 60), (48, 48), (90, 30), (50, 47)]  # height, width


def test_buckets_have_one_area_and_all_shapes():
    sizes = bucket_sizes(256, 32, 2.0)
    assert sizes == [(192, 352), (224, 288), (256, 256), (288, 224), (352, 192)]
    assert all(abs(height * width / 256**2 - 1) < 0.05 for height, width in sizes)
    assert buckets_of(np.array([[10, 10], [100, 190], [1, 50], [300, 230]]), sizes).tolist() == [2, 0, 0, 3]
    for wrong in ({'image_size': 250}, {'ratio': 0.5}, {'multiple': 0}):
        with pytest.raises(ConfigError, match='there are no buckets'):
            bucket_sizes(**{'image_size': 256, 'multiple': 32, 'ratio': 2.0, **wrong})


@pytest.mark.parametrize('count', [7, 64, 101, 240])
def test_every_image_comes_once_an_epoch_and_most_in_their_bucket(count):
    numbers = np.random.default_rng(count).choice(3, count, p=[0.6, 0.3, 0.1])
    buckets = [(32, 64), (48, 48), (64, 32)]
    plan = itertools.chain.from_iterable(bucket_plan(numbers, buckets, 8, 0, 1, seed=3))
    places = list(itertools.islice(plan, 3 * count))
    for epoch in range(3):
        own = [index for of, index, _ in places[epoch * count : (epoch + 1) * count] if of == epoch]
        assert sorted(own) == list(range(count))
    assert [index for _, index, _ in places[:count]] != [index for _, index, _ in places[count : 2 * count]]
    for first in range(0, len(places) - 7, 8):
        assert len({size for _, _, size in places[first : first + 8]}) == 1
    if count > 100:
        assert np.mean([buckets[numbers[index]] == size for _, index, size in places]) > 0.85


def test_the_order_is_that_of_the_step_for_any_number_of_ranks_and_from_any_position():
    numbers = np.random.default_rng(0).choice(3, 50)
    buckets = [(32, 64), (48, 48), (64, 32)]

    def steps(batch: int, world: int, start: int = 0) -> list[list[Any]]:
        ranks = [bucket_plan(numbers, buckets, batch, rank, world, 1, start) for rank in range(world)]
        return [[*itertools.chain.from_iterable(map(next, ranks))] for _ in range(20 - start // (batch * world))]

    alone = steps(12, 1)
    assert alone == steps(4, 3) == steps(6, 2)
    assert alone[7:] == steps(3, 4, start=7 * 12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(30):
        pixels = np.full((*SHAPES[number % 5], 3), number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{number:02}.png')
    return tmp_path


def dataset_of(folder: Path, name: str = 'bucketed') -> FolderDataset:
    return FolderDataset(folder, transform=VQTransformRegistry.build({'type': name, 'image_size': 32}))


@pytest.mark.parametrize('workers', [0, 2])
def test_batches_have_the_size_of_their_bucket_and_the_same_pixels_for_any_workers(workers, folder):
    dataset = dataset_of(folder)
    settings = LoaderSettings(5, workers, aspect_buckets=32, bucket_multiple=8)
    with Loader(dataset, training_batches(dataset, settings, 0, 1, 0, 0), settings, 0, training=True) as loader:
        batches = list(itertools.islice(loader, 6))
    assert sorted(name for batch in batches for name in batch.id) == [f'{number:02}.png' for number in range(30)]
    shapes = {tuple(batch.image.shape[-2:]) for batch in batches}
    assert len(shapes) > 2 and shapes <= set(bucket_sizes(32, 8, 2.0))
    for batch in batches:
        assert batch.image.flatten(1).float().mean(1).tolist() == [float(name[:2]) for name in batch.id]
    again = training_batches(dataset, settings, 0, 1, 0, 15)
    with Loader(dataset, again, LoaderSettings(5), 0, training=True) as loader:
        rest = list(itertools.islice(loader, 3))
    assert all(one.id == two.id and torch.equal(one.image, two.image) for one, two in zip(batches[3:], rest, strict=True))


def test_sizes_come_from_headers_upright_and_a_damaged_file_waits_for_the_loader(folder):
    Image.new('RGB', (40, 20)).save(folder / '30.jpg', exif=b'Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0')
    (folder / '31.jpg').write_bytes(b'no image')
    sizes = sizes_of(dataset_of(folder))
    assert sizes[:5].tolist() == [list(shape) for shape in SHAPES]
    assert sizes[30:].tolist() == [[40, 20], [1, 1]]


def test_what_does_not_fit_buckets_is_refused(folder):
    settings = LoaderSettings(5, aspect_buckets=32, bucket_multiple=8)
    dataset = dataset_of(folder, 'weak')
    with Loader(dataset, training_batches(dataset, settings, 0, 1, 0, 0), settings, 0, training=True) as loader:
        with pytest.raises(UserError, match=r'the images of a bucket of .* are 32 x 32') as raised:
            list(itertools.islice(loader, 6))
    assert 'bucketed' in raised.value.hint
    with pytest.raises(UserError, match='DigitsDataset does not know the sizes'):
        training_batches(DigitsDataset(), settings, 0, 1, 0, 0)
    with pytest.raises(ConfigError, match='there are no buckets of 30 pixels'):
        LoaderSettings(5, aspect_buckets=30)


def test_packed_images_know_their_sizes(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp('packed')
    pack(FolderDataset(folder), root / 'train', Packing('raw'), quiet)
    assert sizes_of(PackedDataset(root))[:5].tolist() == [list(shape) for shape in SHAPES]
